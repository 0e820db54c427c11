#include "programming_errors.hpp"

#include <immintrin.h>

namespace bitline {
namespace {

// Errors in 16 bits, 32 look-ups at once in rows of the table that registers hold.
struct Shuffled {
    using Sum = int32_t;
    static constexpr int VALUES = 256, WORDS = 32;
    static_assert(LONG_STRETCH * 1023 < 1 << 15, "sums of a stretch have 16 bits");
    const Errors& e;
    std::vector<int16_t> table, found;
    std::vector<uint8_t> there;
    int16_t nothing[WIDTH] = {};

    explicit Shuffled(const Errors& errors) : e(errors), table(e.patterns * VALUES), there(e.patterns) {}

    void look_up(const std::vector<Stretch::Place>& places, int64_t k0, int64_t width) {
        found.resize(places.size() * WIDTH);
        __m512i value[2];
        __mmask32 second[2], last[2];  // of each pair of registers, and of both pairs
        int32_t before = -1;
        for (size_t p = 0; p < places.size(); p++) {
            const auto [r, pattern] = places[p];
            if (r != before) {
                int16_t words[WIDTH] = {};
                for (int64_t i = 0; i < width; i++) words[i] = int16_t(e.value[r * e.kernels + k0 + i]);
                for (int half = 0; half < 2; half++) {
                    value[half] = _mm512_loadu_si512(words + half * WORDS);
                    second[half] = _mm512_test_epi16_mask(value[half], _mm512_set1_epi16(64));
                    last[half] = _mm512_test_epi16_mask(value[half], _mm512_set1_epi16(128));
                }
                before = r;
            }
            int16_t* row = table.data() + pattern * VALUES;
            if (!there[pattern]) {
                there[pattern] = 1;
                for (int64_t v = 0; v < e.values; v++) row[v] = int16_t(e.table[pattern * e.values + v]);
            }
            __m512i part[8];
            for (int i = 0; i < 8; i++) part[i] = _mm512_loadu_si512(row + i * WORDS);
            for (int half = 0; half < 2; half++) {
                __m512i of[4];
                for (int i = 0; i < 4; i++) of[i] = _mm512_permutex2var_epi16(part[2 * i], value[half], part[2 * i + 1]);
                const __m512i low = _mm512_mask_mov_epi16(of[0], second[half], of[1]);
                const __m512i high = _mm512_mask_mov_epi16(of[2], second[half], of[3]);
                _mm512_storeu_si512(found.data() + p * WIDTH + half * WORDS, _mm512_mask_mov_epi16(low, last[half], high));
            }
        }
    }

    // Two places at once: the products of a pair of errors with themselves are added up by one instruction.
    void add(int32_t* to, const int32_t* which, int64_t count) {
        __m512i sum[2] = {}, low[2] = {}, high[2] = {};  // squares: four kernels of every eight in either
        for (int64_t p = 0; p < count; p += 2) {
            const int16_t* a = found.data() + int64_t(which[p]) * WIDTH;
            const int16_t* b = p + 1 < count ? found.data() + int64_t(which[p + 1]) * WIDTH : nothing;
            for (int half = 0; half < 2; half++) {
                const __m512i x = _mm512_loadu_si512(a + half * WORDS), y = _mm512_loadu_si512(b + half * WORDS);
                const __m512i u = _mm512_unpacklo_epi16(x, y), v = _mm512_unpackhi_epi16(x, y);
                sum[half] = _mm512_add_epi16(sum[half], _mm512_add_epi16(x, y));
                low[half] = _mm512_add_epi32(low[half], _mm512_madd_epi16(u, u));
                high[half] = _mm512_add_epi32(high[half], _mm512_madd_epi16(v, v));
            }
        }
        const __m512i first = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
        const __m512i second = _mm512_setr_epi32(8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
        const auto put = [](int32_t* at, __m512i x) {
            _mm512_storeu_si512(at, _mm512_add_epi32(_mm512_loadu_si512(at), x));
        };
        for (int half = 0; half < 2; half++) {
            int32_t *at = to + half * WORDS, *square = at + WIDTH;
            put(at, _mm512_cvtepi16_epi32(_mm512_castsi512_si256(sum[half])));
            put(at + 16, _mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64(sum[half], 1)));
            put(square, _mm512_permutex2var_epi32(low[half], first, high[half]));
            put(square + 16, _mm512_permutex2var_epi32(low[half], second, high[half]));
        }
    }
};

}  // namespace

void sum_small_errors(const Errors& e, const std::vector<Stretch>& all) {
    Shuffled way(e);
    for (int64_t k0 = 0; k0 < e.kernels; k0 += WIDTH) sum_block(way, e, all, k0);
}

}  // namespace bitline
