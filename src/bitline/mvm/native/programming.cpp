#include "programming.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

// Several versions of a function, of which the processor's is taken when the module is loaded.
#if defined(BITLINE_X86) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#define FUSED __attribute__((target_clones("fma", "default")))
#else
#define CLONES
#define FUSED
#endif
#define INLINE inline __attribute__((always_inline))

namespace bitline {
namespace {

constexpr int WIDTH = 64;  // kernels at once

// A position whose stuck cells may do harm.
struct Harm {
    int32_t column, pattern;
};

template <class Sum>
INLINE void add(Sum* __restrict to, const Sum* __restrict from) {
    for (int i = 0; i < 2 * WIDTH; i++) to[i] += from[i];
}

template <class Sum>
INLINE bool look_up(const float* __restrict table, const int32_t* __restrict value, Sum* __restrict to) {
    Sum any = 0;
    for (int i = 0; i < WIDTH; i++) {
        const float wrong = table[value[i]];
        to[i] = Sum(wrong), to[WIDTH + i] = Sum(wrong * wrong);
        any |= to[i];
    }
    return any != 0;
}

// One block of kernels: patterns that a row has are looked up once, and added wherever the row has them.
template <class Sum>
INLINE void block(const Errors& e, const std::vector<Harm>& harms, const std::vector<int64_t>& first, int64_t k0) {
    const int64_t width = std::min<int64_t>(WIDTH, e.kernels - k0);
    std::vector<Sum> sums(e.columns * 2 * WIDTH), found;
    std::vector<double> total(e.columns * WIDTH), power(e.columns * WIDTH);
    std::vector<int32_t> seen(e.patterns, -1), slot(e.patterns);
    int32_t value[WIDTH] = {};
    for (int64_t t = 0; t < e.tiles; t++) {
        std::fill(sums.begin(), sums.end(), Sum(0));
        for (int64_t r = e.bounds[t]; r < e.bounds[t + 1]; r++) {
            std::memcpy(value, e.value + r * e.kernels + k0, width * sizeof(int32_t));
            int32_t used = 0;
            for (int64_t h = first[r]; h < first[r + 1]; h++) {
                const Harm harm = harms[h];
                if (seen[harm.pattern] != r) {
                    seen[harm.pattern] = int32_t(r);
                    if (size_t(used + 1) * 2 * WIDTH > found.size()) found.resize(size_t(used + 1) * 4 * WIDTH);
                    const float* row = e.table + harm.pattern * e.values;
                    slot[harm.pattern] = look_up(row, value, found.data() + size_t(used) * 2 * WIDTH) ? used++ : -1;
                }
                if (const int32_t s = slot[harm.pattern]; s >= 0)
                    add(sums.data() + int64_t(harm.column) * 2 * WIDTH, found.data() + size_t(s) * 2 * WIDTH);
            }
        }
        const double rows = double(e.bounds[t + 1] - e.bounds[t]);
        for (int64_t c = 0; c < e.columns; c++)
            for (int i = 0; i < WIDTH; i++) {
                const double sum = double(sums[c * 2 * WIDTH + i]), squares = double(sums[c * 2 * WIDTH + WIDTH + i]);
                total[c * WIDTH + i] += sum;
                power[c * WIDTH + i] += e.measured ? squares - sum * sum / rows : squares;
            }
    }
    for (int64_t k = 0; k < width; k++)
        for (int64_t c = 0; c < e.columns; c++) {
            e.total[(k0 + k) * e.columns + c] = total[c * WIDTH + k];
            e.power[(k0 + k) * e.columns + c] = power[c * WIDTH + k];
        }
}

CLONES void block_narrow(const Errors& e, const std::vector<Harm>& harms, const std::vector<int64_t>& first,
                         int64_t k0) {
    block<int32_t>(e, harms, first, k0);
}
CLONES void block_wide(const Errors& e, const std::vector<Harm>& harms, const std::vector<int64_t>& first,
                       int64_t k0) {
    block<int64_t>(e, harms, first, k0);
}

}  // namespace

void sum_errors(const Errors& e) {
    std::vector<int8_t> harmless(e.patterns, -1);
    std::vector<Harm> harms;
    std::vector<int64_t> first(e.rows + 1);
    for (int64_t r = 0; r < e.rows; r++) {
        for (int64_t c = 0; c < e.columns; c++) {
            const int32_t p = e.pattern[r * e.columns + c];
            if (harmless[p] < 0) {
                const float* row = e.table + p * e.values;
                harmless[p] = std::all_of(row, row + e.values, [](float x) { return x == 0; });
            }
            if (!harmless[p]) harms.push_back({int32_t(c), p});
        }
        first[r + 1] = int64_t(harms.size());
    }
    for (int64_t k0 = 0; k0 < e.kernels; k0 += WIDTH) (e.narrow ? block_narrow : block_wide)(e, harms, first, k0);
}

namespace {

constexpr float STEP = 0.25f, GAIN = 1.0f;

// Table of the first cell that works from `cell` on.
struct Table {
    float edge;
    const float* left;
};

INLINE Table following(const Turns& t, int cell, int working, int tries) {
    static const float nothing[2] = {0, 0};
    if (!working) return {0, nothing};
    const int skip = __builtin_ctz(unsigned(working)), cells = int(t.side.size());
    const int64_t at = (int64_t(tries - 1) * cells + cell + skip) << cells;
    return {t.edge[cell + skip], t.left + t.start[at + (working >> skip)]};
}

INLINE float expected(const Turns& t, int cell, int working, float remainder, int tries) {
    const Table table = following(t, cell, working, tries);
    const float outside = std::max(std::fabs(remainder) - table.edge, 0.0f);
    float place = (std::min(std::max(remainder, -table.edge), table.edge) + table.edge) / STEP;
    const int low = int(place);
    place -= float(low);
    const float below = table.left[low], above = table.left[low + 1];
    const bool near = place < 0.5f;
    const float inside = std::fma(near ? place : place - 1, above - below, near ? below : above);
    const float root = std::sqrt(inside) + outside;
    return root * root;
}

INLINE int level_of(const Turns& t, int cell, int working, float remainder, int tries) {
    const int cells = int(t.side.size());
    const float edge = t.edge[cell];
    const float place = std::min(std::max((remainder + edge) / STEP, 0.0f), 2 * edge / STEP);
    return t.best[t.start[((int64_t(tries - 1) * cells + cell) << cells) + working] + int(std::nearbyint(place))];
}

// 1 where a pair's weight is on the second side.
INLINE int other_side(const Turns& t, int64_t origin) {
    bool any = false;
    if (t.sides == 2)
        for (int64_t s = 0; s < t.slices; s++) any |= t.levels[origin + (t.slices + s) * t.weights] != 0;
    return any;
}

}  // namespace

CLONES std::vector<int> working_patterns(const Turns& t) {
    const int cells = int(t.side.size()), all = (1 << cells) - 1;
    if (!t.stuck) return {all};
    std::vector<uint8_t> seen(size_t(1) << cells);
    for (int64_t g = 0; g < t.groups; g++)
        for (int64_t w = 0; w < t.weights; w++) {
            const int64_t origin = g * t.sides * t.slices * t.weights + w;
            const int other = other_side(t, origin);
            int working = 0;
            for (int k = 0; k < cells; k++)
                working |= int(t.stuck[origin + ((t.side[k] ^ other) * t.slices + t.slice[k]) * t.weights] < 0) << k;
            seen[working] = 1;
        }
    std::vector<int> patterns;
    for (int p = 0; p <= all; p++)
        if (seen[p]) patterns.push_back(p);
    return patterns;
}

FUSED std::pair<int64_t, int64_t> write_in_turn(const Turns& t) {
    const int cells = int(t.side.size()), most = int(t.luck.size());
    int64_t writes = 0, again = 0;
    int64_t plane[MOST_CELLS];
    for (int64_t g = 0; g < t.groups; g++)
        for (int64_t w = 0; w < t.weights; w++) {
            const int64_t origin = g * t.sides * t.slices * t.weights + w;
            const int other = other_side(t, origin);
            float remainder = 0;
            int working = 0;
            for (int k = 0; k < cells; k++) {
                const int64_t at = origin + ((t.side[k] ^ other) * t.slices + t.slice[k]) * t.weights;
                plane[k] = at;
                remainder += t.exact[t.levels[at]] * t.worth[k];
                if (t.stuck && t.stuck[at] >= 0) {
                    t.asked[at] = t.levels[at];
                    t.real[at] = t.exact[t.stuck[at]];
                    remainder -= t.real[at] * t.worth[k];
                } else {
                    working |= 1 << k;
                }
            }
            for (int k = 0; k < cells; k++, working >>= 1) {
                if (!(working & 1)) continue;
                const int64_t at = plane[k];
                int level = level_of(t, k, working, remainder, most);
                float wrote = t.outcomes[level * 65536 + t.luck[0][at] + 32768];
                writes += level != 0;
                for (int tries = most - 1; tries > 0; tries--) {
                    const float kept = expected(t, k + 1, working >> 1, remainder - wrote * t.worth[k], most);
                    if (!(kept > GAIN) || !(expected(t, k, working, remainder, tries) + GAIN < kept)) break;
                    level = level_of(t, k, working, remainder, tries);
                    wrote = t.outcomes[level * 65536 + t.luck[most - tries][at] + 32768];
                    again++;
                }
                remainder -= wrote * t.worth[k];
                t.asked[at] = uint8_t(level), t.real[at] = wrote;
            }
        }
    return {writes + again, again};
}

CLONES int64_t count_tails(const int16_t* drawn, int64_t n, int low, int high) {
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++) count += (drawn[i] < low) | (drawn[i] >= high);
    return count;
}

void settle_tails(int16_t* drawn, int64_t n, int low, int high, const int64_t* rest, const int64_t* edges,
                  int64_t tail) {
    for (int64_t i = 0; i < n; i++) {
        if (drawn[i] >= low && drawn[i] < high) continue;
        // Edges fall: how many are above the draw is the outcome, from the middle on.
        const int64_t above = std::lower_bound(edges, edges + tail, *rest++, [](int64_t e, int64_t r) { return e > r; }) - edges;
        const int beyond = int(above) - 1;
        drawn[i] = int16_t(drawn[i] < 0 ? low - 1 - beyond : high + beyond);
    }
}

void reach(const uint8_t* levels, const int16_t* stuck, const int16_t* luck, int64_t n, const float* exact,
           const float* outcomes, float* real) {
    if (!stuck) {
        for (int64_t i = 0; i < n; i++) real[i] = outcomes[levels[i] * 65536 + luck[i] + 32768];
        return;
    }
    for (int64_t i = 0; i < n; i++)
        real[i] = stuck[i] >= 0 ? exact[stuck[i]] : outcomes[levels[i] * 65536 + luck[i] + 32768];
}

}  // namespace bitline
