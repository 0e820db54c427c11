#include "programming_errors.hpp"

namespace bitline {
namespace {

std::vector<Stretch> stretches(const Errors& e, int64_t length) {
    std::vector<Stretch> all;
    std::vector<int8_t> harmless(e.patterns, -1);
    std::vector<int32_t> seen(e.patterns, -1), place(e.patterns);
    for (int64_t t = 0; t < e.tiles; t++)
        for (int64_t start = e.bounds[t]; start < e.bounds[t + 1]; start += length) {
            const int64_t end = std::min<int64_t>(start + length, e.bounds[t + 1]);
            Stretch here{t, {}, std::vector<int32_t>(e.columns + 1), {}};
            std::vector<std::pair<int32_t, int32_t>> found;  // column and place
            for (int64_t r = start; r < end; r++)
                for (int64_t c = 0; c < e.columns; c++) {
                    const int32_t p = e.pattern[r * e.columns + c];
                    if (harmless[p] < 0) {
                        const float* row = e.table + p * e.values;
                        harmless[p] = std::all_of(row, row + e.values, [](float x) { return x == 0; });
                    }
                    if (harmless[p]) continue;
                    if (seen[p] != r) {
                        seen[p] = int32_t(r), place[p] = int32_t(here.places.size());
                        here.places.push_back({int32_t(r), p});
                    }
                    found.push_back({int32_t(c), place[p]});
                    here.first[c + 1]++;
                }
            for (int64_t c = 0; c < e.columns; c++) here.first[c + 1] += here.first[c];
            here.which.resize(found.size());
            std::vector<int32_t> next(here.first.begin(), here.first.end() - 1);
            for (const auto& [column, at] : found) here.which[next[column]++] = at;
            all.push_back(std::move(here));
        }
    return all;
}

INLINE void narrow_body(const Errors& e, const std::vector<Stretch>& all) {
    Plainly<int32_t> way(e);
    for (int64_t k0 = 0; k0 < e.kernels; k0 += WIDTH) sum_block(way, e, all, k0);
}
INLINE void wide_body(const Errors& e, const std::vector<Stretch>& all) {
    Plainly<int64_t> way(e);
    for (int64_t k0 = 0; k0 < e.kernels; k0 += WIDTH) sum_block(way, e, all, k0);
}
EACH(void, narrow, (const Errors& e, const std::vector<Stretch>& all), (e, all))
EACH(void, wide, (const Errors& e, const std::vector<Stretch>& all), (e, all))

template <class T, class Digit>
INLINE void code(const T* from, int64_t groups, int64_t cells, int64_t positions, int base, Digit digit, int32_t* to) {
    std::fill(to, to + groups * positions, 0);
    constexpr int64_t RUN = 4096;
    for (int64_t g = 0; g < groups; g++)
        for (int64_t start = 0; start < positions; start += RUN) {
            const int64_t end = std::min(positions, start + RUN);
            int32_t weight = 1;
            for (int64_t p = 0; p < cells; p++, weight *= base)
                for (int64_t i = start; i < end; i++)
                    to[g * positions + i] += weight * digit(from[(g * cells + p) * positions + i]);
        }
}
INLINE void states_body(const int16_t* stuck, int64_t groups, int64_t cells, int64_t positions, int32_t* to) {
    code(stuck, groups, cells, positions, 3, [](int16_t s) { return int(s >= 0) + int(s > 0); }, to);
}
INLINE void levels_body(const uint8_t* levels, int64_t groups, int64_t cells, int64_t positions, int base, int32_t* to) {
    code(levels, groups, cells, positions, base, [](uint8_t x) { return int(x); }, to);
}
EACH(void, states, (const int16_t* stuck, int64_t groups, int64_t cells, int64_t positions, int32_t* to),
     (stuck, groups, cells, positions, to))
EACH(void, levels, (const uint8_t* from, int64_t groups, int64_t cells, int64_t positions, int base, int32_t* to),
     (from, groups, cells, positions, base, to))

}  // namespace

void code_states(const int16_t* stuck, int64_t groups, int64_t cells, int64_t positions, int32_t* code) {
    states(stuck, groups, cells, positions, code);
}

void code_levels(const uint8_t* from, int64_t groups, int64_t cells, int64_t positions, int base, int32_t* code) {
    levels(from, groups, cells, positions, base, code);
}

void sum_errors(const Errors& e) {
#ifdef BITLINE_X86
    if (machine() == 2 && e.narrow && e.small && e.values <= 256) return sum_small_errors(e, stretches(e, LONG_STRETCH));
#endif
    (e.narrow ? narrow : wide)(e, stretches(e, STRETCH));
}

}  // namespace bitline
