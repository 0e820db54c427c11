// Sums of errors: a block of kernels after the other, and of each, a stretch of rows after the other.
#pragma once

#include <algorithm>
#include <cstring>

#include "programming.hpp"
#include "programming_ways.hpp"

namespace bitline {

constexpr int WIDTH = 64;  // kernels at once
// Rows at once: what patterns do to a block of kernels there stays in the cache, as numbers or as words.
constexpr int STRETCH = 6, LONG_STRETCH = 32;

// Rows of one tile, and where stuck cells may do harm: patterns of a row that several columns have count once.
struct Stretch {
    struct Place {
        int32_t row, pattern;
    };
    int64_t tile;
    std::vector<Place> places;
    std::vector<int32_t> first, which;  // places of each column, (columns + 1,), and (all of them,)
};

// Errors and their squares as a table has them.
template <class S>
struct Plainly {
    using Sum = S;
    const Errors& e;
    std::vector<Sum> found;

    explicit Plainly(const Errors& errors) : e(errors) {}
    INLINE void look_up(const std::vector<Stretch::Place>& places, int64_t k0, int64_t width) {
        found.assign(places.size() * 2 * WIDTH, 0);
        for (size_t p = 0; p < places.size(); p++) {
            const float* __restrict row = e.table + places[p].pattern * e.values;
            const int32_t* __restrict value = e.value + places[p].row * e.kernels + k0;
            Sum* __restrict to = found.data() + p * 2 * WIDTH;
            for (int64_t i = 0; i < width; i++) {
                const float wrong = row[value[i]];
                to[i] = Sum(wrong), to[WIDTH + i] = Sum(wrong * wrong);
            }
        }
    }
    INLINE void add(Sum* __restrict to, const int32_t* which, int64_t count) {
        for (int64_t p = 0; p < count; p++) {
            const Sum* __restrict from = found.data() + int64_t(which[p]) * 2 * WIDTH;
            for (int i = 0; i < 2 * WIDTH; i++) to[i] += from[i];
        }
    }
};

template <class Way>
INLINE void sum_block(Way& way, const Errors& e, const std::vector<Stretch>& stretches, int64_t k0) {
    using Sum = typename Way::Sum;
    const int64_t width = std::min<int64_t>(WIDTH, e.kernels - k0);
    std::vector<Sum> sums(e.columns * 2 * WIDTH);
    std::vector<double> total(e.columns * WIDTH), power(e.columns * WIDTH);
    for (size_t s = 0; s < stretches.size(); s++) {
        const Stretch& here = stretches[s];
        way.look_up(here.places, k0, width);
        for (int64_t c = 0; c < e.columns; c++)
            way.add(sums.data() + c * 2 * WIDTH, here.which.data() + here.first[c], here.first[c + 1] - here.first[c]);
        if (s + 1 < stretches.size() && stretches[s + 1].tile == here.tile) continue;
        const double rows = double(e.bounds[here.tile + 1] - e.bounds[here.tile]);
        for (int64_t c = 0; c < e.columns; c++)
            for (int i = 0; i < WIDTH; i++) {
                const double sum = double(sums[c * 2 * WIDTH + i]), squares = double(sums[c * 2 * WIDTH + WIDTH + i]);
                total[c * WIDTH + i] += sum;
                power[c * WIDTH + i] += e.measured ? squares - sum * sum / rows : squares;
            }
        std::fill(sums.begin(), sums.end(), Sum(0));
    }
    for (int64_t k = 0; k < width; k++)
        for (int64_t c = 0; c < e.columns; c++) {
            e.total[(k0 + k) * e.columns + c] = total[c * WIDTH + k];
            e.power[(k0 + k) * e.columns + c] = power[c * WIDTH + k];
        }
}

#ifdef BITLINE_X86
// For tables of at most 256 values and small errors, where there is AVX-512.
void sum_small_errors(const Errors&, const std::vector<Stretch>&);
#endif

}  // namespace bitline
