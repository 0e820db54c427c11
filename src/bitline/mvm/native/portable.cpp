// Any machine: vectors of 16 bytes, which compilers map to what there is.
#if defined(__SSSE3__)
#include <tmmintrin.h>
#elif defined(__ARM_NEON) && defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "engine.hpp"

namespace bitline {
namespace {

struct Portable {
    static constexpr int W = 16, TABLE = 16, PLANES = 1, FLOATS = 2;
    static constexpr bool WORDS = false;
    using V8 = uint8_t __attribute__((vector_size(16)));
    using V16 = uint16_t __attribute__((vector_size(16)));
    using V32 = uint32_t __attribute__((vector_size(16)));
    using VF = float __attribute__((vector_size(16)));
    using Tiles = NoTiles;

    static V8 table(const uint8_t* p) {
        V8 v;
        std::memcpy(&v, p, 16);
        return v;
    }
    static V8 lookup(V8 table, V8 index) {
#if defined(__SSSE3__)
        return (V8)_mm_shuffle_epi8((__m128i)table, (__m128i)index);
#elif defined(__ARM_NEON) && defined(__aarch64__)
        return (V8)vqtbl1q_u8((uint8x16_t)table, (uint8x16_t)index);
#else
        V8 v;
        for (int i = 0; i < 16; i++) v[i] = table[index[i]];
        return v;
#endif
    }
    template <bool SIGNED>
    static V16 add_pairs(V8 a, V8 b, V8 scale, bool high) {
#if defined(__SSSE3__)
        const __m128i both = high ? _mm_unpackhi_epi8((__m128i)a, (__m128i)b) : _mm_unpacklo_epi8((__m128i)a, (__m128i)b);
        return (V16)(SIGNED ? _mm_maddubs_epi16((__m128i)scale, both) : _mm_maddubs_epi16(both, (__m128i)scale));
#else
        V16 v;
        for (int i = 0; i < 8; i++) {
            const uint8_t x = a[i + 8 * high], y = b[i + 8 * high];
            v[i] = uint16_t((SIGNED ? int8_t(x) + int8_t(y) : x + y) * scale[0]);
        }
        return v;
#endif
    }
    static V16 mulhi(V16 a, V16 b) {
#if defined(__SSE2__)
        return (V16)_mm_mulhi_epu16((__m128i)a, (__m128i)b);
#else
        V16 v;
        for (int i = 0; i < 8; i++) v[i] = uint16_t(uint32_t(a[i]) * b[i] >> 16);
        return v;
#endif
    }
    static V16 mul_round(V16 a, V16 b) {
        V16 v;
        for (int i = 0; i < 8; i++) v[i] = uint16_t((int32_t(int16_t(a[i])) * int16_t(b[i]) + (1 << 14)) >> 15);
        return v;
    }
    static V16 positive(V16 a) { return a & (V16)(a < 0x8000); }
    static V16 normal(V16 u) { return look_up_normals(u); }
    static uint32_t far(V16 u) { return far_lanes(u); }
    static V16 less_one(V16 k, V16 a, V16 most) {
        using S16 = int16_t __attribute__((vector_size(16)));
        return sub_sat(k, (V16)((S16)a < (S16)most) & 1);
    }
    static V16 add_sat(V16 a, V16 b) { const V16 s = a + b; return s | (V16)(s < a); }
    static V16 sub_sat(V16 a, V16 b) { return (a - b) & (V16)(a > b); }
    static V16 min(V16 a, V16 b) { return a < b ? a : b; }
    static V16 max(V16 a, V16 b) { return a > b ? a : b; }
};

}  // namespace

void run_portable(const Plan& p, const View& v, const Output& o, Tasks& tasks, bool shortcuts) {
    Engine<Portable>(p, v, o, shortcuts).run(tasks);
}

}  // namespace bitline
