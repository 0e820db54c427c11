#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "pack.hpp"
#include "rules.hpp"

namespace bitline {
namespace {

constexpr double EXACT_IN_FLOAT = 1 << 24;

void start_words(Plan& p) {
    p.first_lookup.assign(1, 0);
    for (int t = 0; t < p.tiles; t++)
        p.first_lookup.push_back(p.first_lookup.back() + (p.bounds[t + 1] - p.bounds[t] + WORD_ROWS - 1) / WORD_ROWS);
    p.words.assign(size_t(p.groups) * p.stored * p.planes * p.parts * p.lookups() * WORD_ROWS + 2 * WORD_ROWS, 0);  // kernels load two look-ups at once
}

int tallest(const Plan& p) {
    int most = 1;
    for (int t = 0; t < p.tiles; t++) most = std::max(most, p.bounds[t + 1] - p.bounds[t]);
    return most;
}

// Farthest that read noise moves a sum, units of RESOLUTION.
int64_t most_noise(const Plan& p, const Layer& l, int digit) {
    if (l.noise_variance == 0) return 0;
    return ((quantiles().far[0] * noise_steps(double(tallest(p)) * digit * digit * l.noise_variance)) >> 15) + 1;
}

// The rule for sums that start from `base` and reach `top` or, by noise, beyond: all in units of RESOLUTION, as are the
// range's LSB and offset. None if 16 bits do not suffice.
bool find_word_rule(double lsb, double offset, double base, double top, double noise, int high, FixedRule& rule) {
    if (lsb < 16 || offset < 0 || offset != std::floor(offset)) return false;
    int left = 0;  // by which half an LSB is whole
    double whole = lsb;
    while (left < 8 && whole != 2 * std::floor(whole / 2)) whole *= 2, left++;
    if (whole != 2 * std::floor(whole / 2) || whole > 32000) return false;
    const double half = std::ceil(lsb / 2), start = half - offset;
    const double add = std::max(start - base, 0.0), sub = std::max(base - start, 0.0);
    // Sums saturate: upwards only where they have the highest code anyway, downwards at no sum at all, which has code 0.
    const bool clips = 65535 - base - add >= offset + (high + 1) * lsb;
    if (base + top + add > 65535 || (!clips && base + top + add + noise > 65535) || sub > 65535) return false;
    const int shift = std::clamp(int(std::ceil(std::log2(lsb))) - 1, 0, 15);
    const double factor = std::ceil(std::ldexp(1, 16 + shift) / lsb);
    if (factor > 65535) return false;
    const double rest = std::ldexp(half, left) - whole / 2;
    rule = {uint32_t(factor) * TWICE, uint32_t(add) * TWICE, uint32_t(sub) * TWICE, uint32_t(shift), 0, uint32_t(high) * TWICE,
            uint32_t(whole) * TWICE, uint32_t(left), uint32_t(rest) * TWICE};
    return true;
}

// Visit rows of up to COLUMNS_AT_ONCE columns: (group, plane, tile, row, first column, columns, place of the first word,
// words from one column to the next).
template <class Visit>
void each_row(const Plan& p, Visit visit) {
    for (int g = 0; g < p.groups; g++)
        for (int s = 0; s < p.planes; s++)
            for (int c0 = 0; c0 < p.stored; c0 += COLUMNS_AT_ONCE)
                for (int t = 0; t < p.tiles; t++)
                    for (int r = p.bounds[t]; p.reads(g, t) && r < p.bounds[t + 1]; r++)
                        visit(g, s, t, r, c0, std::min(p.stored - c0, COLUMNS_AT_ONCE),
                              p.word(g, t, c0, s) + r - p.bounds[t], p.part_words(t) * p.parts * p.planes);
}

}  // namespace

bool pack_one_word(Plan& p, const Levels& level, const Layer& l) {
    if (!p.limited || p.low != 0 || !codes_fit(p)) return false;
    p.parts = 1;
    start_words(p);
    const int grain = int(level.unit / RESOLUTION);
    const size_t each = size_t(p.groups) * p.planes * p.tiles * p.stored;
    std::vector<int32_t> most(each), least(each);
    each_row(p, [&](int g, int s, int t, int r, int c0, int n, size_t at, size_t column) {
        const int16_t* v = level.row(g, s, r) + c0;
        const size_t k = ((size_t(g) * p.planes + s) * p.tiles + t) * p.stored + c0;
        for (int c = 0; c < n; c++) {
            const int word = v[c] * grain;
            p.words[at + c * column] = uint16_t(word);
            most[k + c] += std::max(word, 0), least[k + c] += std::min(word, 0);
        }
    });
    double base = 0, top = 0;
    for (int32_t v : least) base = std::max(base, -double(v));
    for (int32_t v : most) top = std::max(top, double(v));
    const int64_t noise = most_noise(p, l, 1);
    if (!level.fits || noise_steps(tallest(p) * l.noise_variance) > 32767) return false;
    p.base = uint16_t(base);
    p.rule = Rule::words;
    p.fixed.assign(p.lsb.size(), {});
    for (size_t i = 0; i < p.lsb.size(); i++) {
        const double lsb = p.lsb[i] / RESOLUTION, offset = p.offset[i] / RESOLUTION;
        if (!find_word_rule(lsb, offset, base, top, double(noise), p.high, p.fixed[i])) return false;
        if (p.fixed[i].left) p.rule = Rule::fine_words;
    }
    return true;
}

bool pack_two_words(Plan& p, const Levels& level) {
    p.base = 0;
    p.part_shift = std::min(15, int(std::floor(std::log2(65535.0 / tallest(p)))));
    p.parts = 2;
    p.unit = float(RESOLUTION);
    start_words(p);
    const int grain = int(level.unit / RESOLUTION);
    bool fits = level.fits;
    const size_t each = size_t(p.groups) * p.planes * p.tiles * p.stored;
    std::vector<int32_t> up(each), down(each);
    each_row(p, [&](int g, int s, int t, int r, int c0, int n, size_t at, size_t column) {
        const int16_t* v = level.row(g, s, r) + c0;
        const size_t k = ((size_t(g) * p.planes + s) * p.tiles + t) * p.stored + c0;
        for (int c = 0; c < n; c++) {
            const int word = v[c] * grain, high = word >> p.part_shift;
            p.words[at + c * column] = uint16_t(word - high * (1 << p.part_shift));
            p.words[at + c * column + p.part_words(t)] = uint16_t(high);
            up[k + c] += std::max(high, 0), down[k + c] -= std::min(high, 0);
        }
    });
    for (size_t i = 0; fits && i < each; i++) fits = up[i] < 32767 && down[i] < 32767;
    return fits;
}

void pack_floats(Plan& p, const Levels& level) {
    const int quads = (p.stored + 3) / 4;
    p.levels.assign(size_t(p.groups) * p.planes * quads * p.rows * 4, 0);
    for (int g = 0; g < p.groups; g++)
        for (int s = 0; s < p.planes; s++)
            for (int c = 0; c < p.stored; c++)
                for (int r = 0; r < p.rows; r++)
                    p.levels[(((size_t(g) * p.planes + s) * quads + c / 4) * p.rows + r) * 4 + c % 4] =
                        float(level(g, s, r, c));
}

void check_floats(const Plan& p, const Levels& level, const Layer& l) {
    int mask = 0;
    for (int m : p.digit_mask) mask = std::max(mask, m);
    const double noise = double(most_noise(p, l, mask)) * RESOLUTION / level.unit;
    const double exact = EXACT_IN_FLOAT / (l.noise_variance > 0 ? level.unit / RESOLUTION : 1);
    if (noise_steps(double(tallest(p)) * mask * mask * l.noise_variance) > 65535)
        throw std::invalid_argument("read noise of a sum exceeds 64 levels");
    std::vector<double> sum(p.stored);
    for (int g = 0; g < p.groups; g++)
        for (int s = 0; s < p.planes; s++)
            for (int t = 0; t < p.tiles; t++) {
                std::fill(sum.begin(), sum.end(), 0.0);
                for (int r = p.bounds[t]; r < p.bounds[t + 1]; r++) {
                    const int16_t* v = level.row(g, s, r);
                    if (level.fits)
                        for (int c = 0; c < p.stored; c++) sum[c] += std::abs(v[c]);
                    else
                        for (int c = 0; c < p.stored; c++) sum[c] += std::abs(level(g, s, r, c)) / level.unit;
                }
                for (int c = 0; c < p.stored; c++) {
                    if (sum[c] * mask + noise > exact) throw std::invalid_argument("analog sums exceed 24 bits");
                    if (!p.limited && ((sum[c] * mask + noise) * level.unit + 1) * p.tiles > 1u << 31)
                        throw std::invalid_argument("codes of all row tiles exceed 31 bits");
                }
            }
}

}  // namespace bitline
