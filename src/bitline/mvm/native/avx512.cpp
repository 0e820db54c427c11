// AVX-512 with VBMI: 64 digits a look-up of six rows, or 32 of five rows where levels are real.
#include <immintrin.h>

#include "engine.hpp"

namespace bitline {
namespace {

struct Avx512 {
    static constexpr int W = 64, TABLE = 64, PLANES = 2, FLOATS = 4;
    static constexpr bool WORDS = true;
    using V8 = uint8_t __attribute__((vector_size(64)));
    using V16 = uint16_t __attribute__((vector_size(64)));
    using V32 = uint32_t __attribute__((vector_size(64)));
    using VF = float __attribute__((vector_size(64)));

    static V8 table(const uint8_t* p) { return (V8)_mm512_loadu_si512(p); }
    static V8 lookup(V8 table, V8 index) { return (V8)_mm512_permutexvar_epi8((__m512i)index, (__m512i)table); }
    template <bool SIGNED>
    static V16 add_pairs(V8 a, V8 b, V8 scale, bool high) {
        const __m512i both = high ? _mm512_unpackhi_epi8((__m512i)a, (__m512i)b) : _mm512_unpacklo_epi8((__m512i)a, (__m512i)b);
        return (V16)(SIGNED ? _mm512_maddubs_epi16((__m512i)scale, both) : _mm512_maddubs_epi16(both, (__m512i)scale));
    }
    static V16 mulhi(V16 a, V16 b) { return (V16)_mm512_mulhi_epu16((__m512i)a, (__m512i)b); }
    static V16 add_sat(V16 a, V16 b) { return (V16)_mm512_adds_epu16((__m512i)a, (__m512i)b); }
    static V16 sub_sat(V16 a, V16 b) { return (V16)_mm512_subs_epu16((__m512i)a, (__m512i)b); }
    static V16 min(V16 a, V16 b) { return (V16)_mm512_min_epu16((__m512i)a, (__m512i)b); }
    static V16 max(V16 a, V16 b) { return (V16)_mm512_max_epu16((__m512i)a, (__m512i)b); }

    // Sums of every subset of five levels.
    template <bool SATURATE>
    static V16 table16(const uint16_t* level) {
        const __mmask32 with[5] = {0xaaaaaaaa, 0xcccccccc, 0xf0f0f0f0, 0xff00ff00, 0xffff0000};
        __m512i t = _mm512_maskz_set1_epi16(with[0], (short)level[0]);
#pragma GCC unroll 4
        for (int i = 1; i < 5; i++) {
            const __m512i l = _mm512_set1_epi16((short)level[i]);
            t = SATURATE ? _mm512_mask_adds_epu16(t, with[i], t, l) : _mm512_mask_add_epi16(t, with[i], t, l);
        }
        return (V16)t;
    }
    static V16 lookup16(V16 table, V16 index) { return (V16)_mm512_permutexvar_epi16((__m512i)index, (__m512i)table); }
};

}  // namespace

void run_avx512(const Plan& p, const View& v, const Output& o, int64_t first, int64_t last, bool shortcuts) {
    Engine<Avx512>(p, v, o, shortcuts).run(first, last);
}

}  // namespace bitline
