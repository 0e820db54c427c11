// AVX2: 32 digits a look-up of four rows.
#include <immintrin.h>

#include "engine.hpp"

namespace bitline {
namespace {

struct Avx2 {
    static constexpr int W = 32, TABLE = 16, PLANES = 1, FLOATS = 2;
    static constexpr bool WORDS = false;
    using V8 = uint8_t __attribute__((vector_size(32)));
    using V16 = uint16_t __attribute__((vector_size(32)));
    using V32 = uint32_t __attribute__((vector_size(32)));
    using VF = float __attribute__((vector_size(32)));
    using Tiles = NoTiles;

    static V8 table(const uint8_t* p) { return (V8)_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i*)p)); }
    static V8 lookup(V8 table, V8 index) { return (V8)_mm256_shuffle_epi8((__m256i)table, (__m256i)index); }
    template <bool SIGNED>
    static V16 add_pairs(V8 a, V8 b, V8 scale, bool high) {
        const __m256i both = high ? _mm256_unpackhi_epi8((__m256i)a, (__m256i)b) : _mm256_unpacklo_epi8((__m256i)a, (__m256i)b);
        return (V16)(SIGNED ? _mm256_maddubs_epi16((__m256i)scale, both) : _mm256_maddubs_epi16(both, (__m256i)scale));
    }
    static V16 mulhi(V16 a, V16 b) { return (V16)_mm256_mulhi_epu16((__m256i)a, (__m256i)b); }
    static V16 mul_round(V16 a, V16 b) { return (V16)_mm256_mulhrs_epi16((__m256i)a, (__m256i)b); }
    static V16 positive(V16 a) { return (V16)_mm256_max_epi16((__m256i)a, _mm256_setzero_si256()); }
    static V16 normal(V16 u) { return look_up_normals(u); }
    static uint32_t far(V16 u) { return far_lanes(u); }
    static V16 less_one(V16 k, V16 a, V16 most) {
        return sub_sat(k, (V16)_mm256_cmpgt_epi16((__m256i)most, (__m256i)a) & 1);
    }
    static V16 add_sat(V16 a, V16 b) { return (V16)_mm256_adds_epu16((__m256i)a, (__m256i)b); }
    static V16 sub_sat(V16 a, V16 b) { return (V16)_mm256_subs_epu16((__m256i)a, (__m256i)b); }
    static V16 min(V16 a, V16 b) { return (V16)_mm256_min_epu16((__m256i)a, (__m256i)b); }
    static V16 max(V16 a, V16 b) { return (V16)_mm256_max_epu16((__m256i)a, (__m256i)b); }
};

}  // namespace

void run_avx2(const Plan& p, const View& v, const Output& o, Tasks& tasks, bool shortcuts) {
    Engine<Avx2>(p, v, o, shortcuts).run(tasks);
}

}  // namespace bitline
