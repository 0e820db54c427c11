// AVX-512 with VBMI: 64 digits a look-up of six rows, or 32 where levels are real.
#pragma once

#include <immintrin.h>

#include "engine.hpp"

namespace bitline {
namespace {

// Which word each lane takes: a level of its run of three, or the sum of a subset of the first or second run of a pair.
struct LanesOfWords {
    alignas(64) uint16_t run[3][32] = {}, pair[2][3][32] = {};

    constexpr LanesOfWords() {
        for (int w = 0; w < 32; w++) {
            for (int i = 0; i < 3; i++) run[i][w] = uint16_t(w / 8 * 3 + i);
            for (int p = 0; p < 2; p++) {
                pair[p][0][w] = uint16_t(16 * p + w % 8);
                pair[p][1][w] = uint16_t(16 * p + 8 + w / 8), pair[p][2][w] = uint16_t(16 * p + 12 + w / 8);
            }
        }
    }
};
constexpr LanesOfWords LANES_OF_WORDS;

struct Avx512 {
    static constexpr int W = 64, TABLE = 64, PLANES = 2, FLOATS = 4;
    static constexpr bool WORDS = true;
    using V8 = uint8_t __attribute__((vector_size(64)));
    using V16 = uint16_t __attribute__((vector_size(64)));
    using V32 = uint32_t __attribute__((vector_size(64)));
    using VF = float __attribute__((vector_size(64)));
    using Tiles = NoTiles;

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

    static V16 mul_round(V16 a, V16 b) { return (V16)_mm512_mulhrs_epi16((__m512i)a, (__m512i)b); }
    static V16 positive(V16 a) { return (V16)_mm512_max_epi16((__m512i)a, _mm512_setzero_si512()); }
    static V16 normal(V16 u) {
        const Quantiles& q = quantiles();
        const __m512i m = _mm512_and_si512((__m512i)u, _mm512_set1_epi16(0x7fff)), segment = _mm512_srli_epi16(m, 10);
        const __m512i knot = _mm512_permutexvar_epi16(segment, _mm512_load_si512(q.knot));
        const __m512i slope = _mm512_permutexvar_epi16(segment, _mm512_load_si512(q.slope));
        __m512i z = _mm512_add_epi16(knot, _mm512_mulhi_epu16(slope, _mm512_slli_epi16(m, 6)));
        // Bits of the fraction alone decide a look-up of 32 words.
        const __mmask32 tail = _mm512_cmpge_epu16_mask(m, _mm512_set1_epi16(31 << 10));
        const __m512i step = _mm512_srli_epi16(m, 5);
        const __m512i tail_knot = _mm512_permutexvar_epi16(step, _mm512_load_si512(q.tail_knot));
        const __m512i tail_slope = _mm512_permutexvar_epi16(step, _mm512_load_si512(q.tail_slope));
        z = _mm512_mask_add_epi16(z, tail, tail_knot, _mm512_mulhi_epu16(tail_slope, _mm512_slli_epi16(m, 11)));
        const __mmask32 negative = _mm512_movepi16_mask((__m512i)u);
        return (V16)_mm512_mask_sub_epi16(z, negative, _mm512_setzero_si512(), z);
    }

    // Lanes of uniform numbers that lie in a tail.
    static uint32_t far(V16 u) {
        return _mm512_cmpge_epu16_mask(_mm512_and_si512((__m512i)u, _mm512_set1_epi16(0x7fff)), _mm512_set1_epi16(FAR));
    }
    // k, and one less, but not below zero, where a < most (both with a sign).
    static V16 less_one(V16 k, V16 a, V16 most) {
        const __mmask32 less = _mm512_cmplt_epi16_mask((__m512i)a, (__m512i)most);
        return (V16)_mm512_mask_subs_epu16((__m512i)k, less, (__m512i)k, _mm512_set1_epi16(1));
    }

    // Sums of every subset of three levels, for four runs of three.
    static V16 subsets(const uint16_t* level) {
        const __m512i l = _mm512_maskz_loadu_epi16(0xfff, level);
        __m512i sum = _mm512_maskz_permutexvar_epi16(0xaaaaaaaa, _mm512_load_si512(LANES_OF_WORDS.run[0]), l);
        sum = _mm512_add_epi16(sum, _mm512_maskz_permutexvar_epi16(0xcccccccc, _mm512_load_si512(LANES_OF_WORDS.run[1]), l));
        return (V16)_mm512_add_epi16(sum, _mm512_maskz_permutexvar_epi16(0xf0f0f0f0, _mm512_load_si512(LANES_OF_WORDS.run[2]), l));
    }
    // Sums of every subset of the six levels of two of these runs.
    struct Words {
        __m512i low, high;
    };
    static Words words(V16 subsets, int pair) {
        const auto choose = [&](int i) {
            return _mm512_permutexvar_epi16(_mm512_load_si512(LANES_OF_WORDS.pair[pair][i]), (__m512i)subsets);
        };
        const __m512i first = choose(0);
        return {_mm512_add_epi16(first, choose(1)), _mm512_add_epi16(first, choose(2))};
    }
    static V16 lookup16(const Words& w, V16 index) {
        return (V16)_mm512_permutex2var_epi16(w.low, (__m512i)index, w.high);
    }
};

}  // namespace
}  // namespace bitline
