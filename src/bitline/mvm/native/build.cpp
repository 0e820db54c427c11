#include "build.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <stdexcept>

namespace bitline {
namespace {

constexpr double EXACT_IN_FLOAT = 1 << 24;
constexpr uint32_t TWICE = 0x10001;

// What a plane of the product adds at (row, col); a pair that is subtracted first is one plane.
struct Levels {
    const Layer& l;
    double unit;                  // 1, or RESOLUTION
    std::vector<int16_t> whole;   // (groups, planes, rows, stored), units
    bool fits = true;             // all levels are whole units of 16 bits

    explicit Levels(const Layer& l) : l(l), unit(l.integral ? 1 : RESOLUTION) {
        const size_t matrix = size_t(l.rows) * l.stored, converted = l.side_weight.size();
        whole.resize(matrix * l.groups * l.slices * converted);
        int16_t* to = whole.data();
        for (int g = 0; g < l.groups; g++)
            for (int slice = 0; slice < l.slices; slice++)
                for (size_t side = 0; side < converted; side++, to += matrix) {
                    const size_t at = ((size_t(g) * l.sides + side) * l.slices + slice) * matrix;
                    const size_t other = l.subtracts ? size_t(l.slices) * matrix : 0;
                    if (l.integral)
                        fill(l.bytes + at, other, matrix, to);
                    else
                        fill(l.reals + at, other, matrix, to);
                }
    }
    const int16_t* row(int g, int plane, int r) const {
        return whole.data() + ((size_t(g) * l.slices * l.side_weight.size() + plane) * l.rows + r) * l.stored;
    }
    int units(int g, int plane, int r, int c) const { return row(g, plane, r)[c]; }
    // Exact also where it does not fit.
    double operator()(int g, int plane, int r, int c) const {
        const int converted = int(l.side_weight.size());
        const double v = at(g, plane % converted, plane / converted, r, c);
        return l.subtracts ? v - at(g, 1, plane / converted, r, c) : v;
    }

   private:
    template <class T>
    void fill(const T* from, size_t other, size_t n, int16_t* to) {
        const float scale = float(1 / unit);
        bool right = true;
        for (size_t i = 0; i < n; i++) {
            float v = float(from[i]);
            if (other) v -= float(from[i + other]);
            v *= scale;
            const int32_t w = int32_t(v);
            right &= float(w) == v && w == int16_t(w);
            to[i] = int16_t(w);
        }
        fits &= right;
    }
    double at(int g, int side, int slice, int r, int c) const {
        const size_t i = (((size_t(g) * l.sides + side) * l.slices + slice) * l.rows + r) * l.stored + c;
        return l.integral ? l.bytes[i] : l.reals[i];
    }
};

constexpr int COLUMNS_AT_ONCE = 16;  // of a packer: as many streams are written side by side

double rounded(double a, double offset, double lsb) { return std::nearbyint((a - offset) / lsb); }

// The rule that gives the right code for every whole sum, if 16 bits suffice.
bool find_rule(const Plan& p, int range, int shift_in, FixedRule& rule) {
    const double lsb = p.lsb[range], offset = p.offset[range], scale = 1 << shift_in;
    const int bias = p.bias[range];
    const bool ties = std::fmod(lsb, 2) == 0;
    const double start = (lsb / 2 - offset + bias * lsb) * scale, reach = lsb * scale;
    int shift = int(std::ceil(std::log2(reach))) - 1;
    shift = std::clamp(shift, 0, 15);
    const double slope = std::ldexp(1, 16 + shift) / reach;
    const int low = p.limited ? p.low + bias : 0;
    const int high = p.limited ? p.high + bias : 65535;
    if (high > 65535 || (ties && reach > 65535)) return false;
    std::vector<int> want(p.most - p.least + 1);
    for (int a = p.least; a <= p.most; a++) {
        const double code = rounded(a, offset, lsb) + bias;
        want[a - p.least] = int(std::clamp(code, double(low), double(high)));
    }
    for (int df = 0; df < 9; df++)
        for (int da = 0; da < 7; da++) {
            const double factor = std::nearbyint(slope) + (df % 2 ? (df + 1) / 2 : -df / 2);
            const double add = std::floor(start) + (da % 2 ? (da + 1) / 2 : -da / 2);
            if (factor < 1 || factor > 65535 || (p.least * scale) + add < 0 || p.most * scale + add > 65535) continue;
            const uint32_t f = uint32_t(factor), tie = ties ? uint32_t(reach) : 0;
            bool right = true;
            for (int a = p.least; right && a <= p.most; a++) {
                const uint32_t v = uint32_t(a * int(scale) + int(add));
                uint32_t k = (v * f >> 16) >> shift;
                if (ties) k -= k & 1 & (k * tie == v);
                right = int(std::clamp<uint32_t>(k, low, high)) == want[a - p.least];
            }
            if (right) {
                rule = {f * TWICE, uint32_t(add) * TWICE, 0, uint32_t(shift), uint32_t(low) * TWICE,
                        uint32_t(high) * TWICE, tie * TWICE};
                return true;
            }
        }
    return false;
}

// Whether no sum reaches beyond the codes.
bool never_clips(const Plan& p) {
    if (!p.limited) return true;
    for (size_t i = 0; i < p.lsb.size(); i++)
        if (rounded(p.most, p.offset[i], p.lsb[i]) > p.high || rounded(p.least, p.offset[i], p.lsb[i]) < p.low)
            return false;
    return true;
}

void find_rules(Plan& p) {
    const size_t ranges = p.lsb.size();
    for (int shift_in = p.most_shift; shift_in >= 0; shift_in--) {
        p.fixed.assign(ranges, {});
        p.shift_in = shift_in;
        bool right = true, floor = false, ties = false;
        for (size_t i = 0; right && i < ranges; i++) {
            right = find_rule(p, int(i), shift_in, p.fixed[i]);
            floor |= p.fixed[i].low > 0;
            ties |= p.fixed[i].lsb > 0;
        }
        p.rule = ties ? Rule::ties : floor ? Rule::floor : Rule::plain;
        if (right && p.rule == Rule::plain && never_clips(p)) p.rule = Rule::free;
        if (right) return;
    }
    p.fixed.clear();
}

void fill_tables(Plan& p) {
    for (size_t i = 0; i < p.lsb.size(); i++) {
        std::vector<uint16_t> table(p.most - p.least + 1);
        std::vector<uint8_t> beyond(table.size());
        for (int a = p.least; a <= p.most; a++) {
            const double code = rounded(a, p.offset[i], p.lsb[i]);
            const double kept = p.limited ? std::clamp(code, double(p.low), double(p.high)) : code;
            if (kept + p.bias[i] > 65535) throw std::invalid_argument("codes exceed 16 bits");
            table[a - p.least] = uint16_t(kept + p.bias[i]);
            beyond[a - p.least] = kept != code;
        }
        p.tables.push_back(std::move(table));
        p.beyond.push_back(std::move(beyond));
    }
}

// Whether codes, added up over digits or row tiles, stay within 16 bits; chooses which of the two.
bool codes_fit(Plan& p) {
    double most = 0, digits = 0;
    for (size_t i = 0; i < p.lsb.size(); i++)
        most = std::max(most, p.limited ? double(p.high + p.bias[i])
                                        : rounded(p.most, p.offset[i], p.lsb[i]) + p.bias[i]);
    for (double w : p.digit_weight) digits += std::abs(w);
    const bool negative = p.digit_weight.back() < 0;
    p.horner = p.stride[1] == 0 && (negative ? most * -p.digit_weight.back() < 32768 : most * digits < 65536);
    return p.horner || most * p.tiles < 65536;
}

// Tiles of levels in whole units of `unit`, if two bytes hold them; levels of one byte come scaled by 2^shift.
bool pack_tiles(Plan& p, const Levels& level, double unit, int shift) {
    const int grain = int(level.unit / unit);
    if (!level.fits) return false;
    int64_t low = 0, high = 0;
    for (int16_t v : level.whole) low = std::min<int64_t>(low, v), high = std::max<int64_t>(high, v);
    low *= grain, high *= grain;
    if (high > 65535) return false;
    const bool negative = low < 0;
    if (negative && (low < -32768 || high > 32767)) return false;
    p.tile_parts = negative ? low < -128 || high > 127 ? 2 : 1 : high > 255 ? 2 : 1;
    p.tiled = true, p.tile_signed = negative;
    int tallest = 1;
    for (int t = 0; t < p.tiles; t++) tallest = std::max(tallest, p.bounds[t + 1] - p.bounds[t]);
    const int blocks = (tallest + 63) / 64;
    p.tile_rows = ((tallest + blocks - 1) / blocks + 3) / 4 * 4;
    p.tile_columns = std::min(16, p.stored);
    p.first_block.assign(1, 0);
    for (int t = 0; t < p.tiles; t++)
        p.first_block.push_back(p.first_block.back() + (p.bounds[t + 1] - p.bounds[t] + p.tile_rows - 1) / p.tile_rows);
    const int sixteens = (p.stored + 15) / 16;
    const size_t bytes = size_t(p.groups) * p.first_block.back() * sixteens * p.planes * p.tile_parts * p.tile_columns * 64;
    p.tile_levels.reset(static_cast<uint8_t*>(std::aligned_alloc(64, bytes)), std::free);
    std::memset(p.tile_levels.get(), 0, bytes);
    uint8_t* to = p.tile_levels.get();
    for (int g = 0; g < p.groups; g++)
        for (int t = 0; t < p.tiles; t++)
            for (int c0 = 0; c0 < p.stored; c0 += 16)
                for (int s = 0; s < p.planes; s++)
                    for (int part = 0; part < p.tile_parts; part++)
                        for (int r0 = p.bounds[t]; r0 < p.bounds[t + 1]; r0 += p.tile_rows, to += p.tile_columns * 64)
                            for (int r = r0; r < std::min(r0 + p.tile_rows, p.bounds[t + 1]); r++)
                                for (int c = c0; c < std::min(p.stored, c0 + 16); c++) {
                                    const int v = level.units(g, s, r, c) * grain;
                                    to[(c - c0) * 64 + r - r0] = uint8_t(p.tile_parts == 1 ? v * (1 << shift) : v >> 8 * part);
                                }
    return true;
}

// Whether integer levels make 16-bit sums of tiles; how much levels and digits can be scaled up within their bytes.
bool tiles_of_bytes(Plan& p, const Layer& l, int& room) {
    int most = 0, mask = 0, tallest = 0;
    const size_t n = size_t(l.groups) * l.sides * l.slices * l.rows * l.stored;
    for (size_t i = 0; i < n; i++) most = std::max<int>(most, l.bytes[i]);
    for (int m : p.digit_mask) mask = std::max(mask, m);
    for (int t = 0; t < p.tiles; t++) tallest = std::max(tallest, p.bounds[t + 1] - p.bounds[t]);
    const int limit = l.subtracts ? 127 : 255;
    if (most > limit || mask > 255 || int64_t(most) * mask * tallest > (l.subtracts ? 32767 : 65535)) return false;
    p.most = most * mask * tallest, p.least = l.subtracts ? -p.most : 0;
    const auto shifts = [](int value, int limit) {
        int i = 0;
        while (i < 6 && value << (i + 1) <= limit) i++;
        return i;
    };
    room = shifts(most, limit);
    p.most_shift = std::min(6, room + shifts(mask, 255));
    return true;
}

bool pack_bytes(Plan& p, const Layer& l, const Levels& level, int index_bits) {
    int least = 0, most = 0;
    const size_t n = size_t(l.groups) * l.sides * l.slices * l.rows * l.stored;
    for (size_t i = 0; i < n; i++) most = std::max<int>(most, l.bytes[i]);
    if (l.subtracts) least = -most;
    int mask = 0, width = 0;
    for (int m : p.digit_mask) mask = std::max(mask, m);
    while (mask >> width) width++;
    if (width > index_bits) return false;
    const int limit = l.subtracts ? 127 : 255;
    int tallest = 0;
    for (int t = 0; t < p.tiles; t++) tallest = std::max(tallest, p.bounds[t + 1] - p.bounds[t]);
    p.least = least * mask * tallest, p.most = most * mask * tallest;
    if (p.most > (l.subtracts ? 32767 : 65535)) return false;
    // Rows of a look-up: as many as index bits allow and a byte holds, in pieces whose levels make one code.
    const int span = most - least + 1;
    if (span > 256 || most * mask > limit) return false;
    p.piece_rows = width == 1 && span * span <= 256 ? 2 : 1;
    p.pieces = index_bits / width / p.piece_rows;
    while (p.pieces > 1 && p.pieces * p.piece_rows * most * mask > limit) p.pieces--;
    if (p.pieces == 4 || p.pieces == 5) p.pieces = 3;
    if (p.pieces * p.piece_rows * most * mask > limit) {
        p.piece_rows = 1;
        if (p.pieces * most * mask > limit) return false;
    }
    const int rows = p.pieces * p.piece_rows, each = std::max(1, rows * most * mask);
    p.index_bits = rows * width;
    p.lookups_per_chunk = limit / each;
    p.first_lookup.assign(1, 0);
    for (int t = 0; t < p.tiles; t++)
        p.first_lookup.push_back(p.first_lookup.back() + (p.bounds[t + 1] - p.bounds[t] + rows - 1) / rows);
    if (((tallest + rows - 1) / rows + p.lookups_per_chunk - 1) / p.lookups_per_chunk > MOST_CHUNKS) return false;
    p.signed_bytes = l.subtracts;

    const int table = index_bits == 6 ? 64 : 16, codes = p.piece_rows == 2 ? span * span : span;
    p.codes = codes;
    const size_t bytes = (size_t(p.pieces) * codes * table + 63) / 64 * 64;
    p.expand.reset(static_cast<uint8_t*>(std::aligned_alloc(64, bytes)), std::free);
    std::memset(p.expand.get(), 0, bytes);
    for (int i = 0; i < p.pieces; i++)
        for (int code = 0; code < codes; code++)
            for (int e = 0; e < table; e++) {
                int sum = 0, rest = code;
                for (int j = 0; j < p.piece_rows; j++, rest /= span)
                    sum += (e >> (i * p.piece_rows + j) * width & mask) * (rest % span + least);
                p.expand.get()[(size_t(i) * codes + code) * table + e] = uint8_t(sum);
            }
    p.packed.resize(size_t(p.groups) * p.stored * p.planes * p.lookups() * p.pieces);
    const size_t plane = size_t(p.lookups()) * p.pieces, column = plane * p.planes;
    const std::vector<int16_t> none(p.stored, 0);
    for (int g = 0; g < p.groups; g++)
        for (int s = 0; s < p.planes; s++)
            for (int c0 = 0; c0 < p.stored; c0 += COLUMNS_AT_ONCE) {
                const int n = std::min(p.stored - c0, COLUMNS_AT_ONCE);
                uint8_t* to = p.packed.data() + (size_t(g) * p.stored + c0) * column + s * plane;
                for (int t = 0; t < p.tiles; t++)
                    for (int r = p.bounds[t]; r < p.bounds[t + 1]; r += rows)
                        for (int i = 0; i < p.pieces; i++, to++) {
                            const int16_t* v[2] = {none.data(), none.data()};
                            for (int j = 0; j < p.piece_rows; j++)
                                if (const int row = r + i * p.piece_rows + j; row < p.bounds[t + 1])
                                    v[j] = level.row(g, s, row) + c0;
                            const int second = p.piece_rows == 2 ? span : 0;
                            for (int c = 0; c < n; c++)
                                to[c * column] = uint8_t(v[0][c] - least + (v[1][c] - least) * second);
                        }
            }
    return true;
}

void start_words(Plan& p) {
    p.first_lookup.assign(1, 0);
    for (int t = 0; t < p.tiles; t++)
        p.first_lookup.push_back(p.first_lookup.back() + (p.bounds[t + 1] - p.bounds[t] + 4) / 5);
    p.words.assign(size_t(p.groups) * p.stored * p.planes * p.parts * p.lookups() * 5, 0);
}

// Visit rows of up to COLUMNS_AT_ONCE columns: (group, plane, tile, row, first column, columns, place of the first word,
// words from one column to the next).
template <class Visit>
void each_row(const Plan& p, Visit visit) {
    const size_t plane = size_t(p.parts) * p.lookups() * 5, column = plane * p.planes;
    for (int g = 0; g < p.groups; g++)
        for (int s = 0; s < p.planes; s++)
            for (int c0 = 0; c0 < p.stored; c0 += COLUMNS_AT_ONCE)
                for (int t = 0; t < p.tiles; t++)
                    for (int r = p.bounds[t]; r < p.bounds[t + 1]; r++)
                        visit(g, s, t, r, c0, std::min(p.stored - c0, COLUMNS_AT_ONCE),
                              (size_t(g) * p.stored + c0) * column + s * plane + size_t(p.first_lookup[t]) * 5 + r -
                                  p.bounds[t],
                              column);
}

// One part: exact sums of at most 16 bits, converted to within one unit.
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
    const bool fits = level.fits;
    int tallest = 0;
    for (int t = 0; t < p.tiles; t++) tallest = std::max(tallest, p.bounds[t + 1] - p.bounds[t]);
    if (!fits || std::sqrt(tallest * l.noise_variance) / RESOLUTION * 32768 / NOISE_SIGMA > 32767) return false;
    p.base = uint16_t(base);
    p.rule = Rule::words;
    p.fixed.assign(p.lsb.size(), {});
    for (size_t i = 0; i < p.lsb.size(); i++) {
        // Sums start from base; what is added and taken away must not reach 16 bits.
        const double reach = p.lsb[i] / RESOLUTION, start = std::nearbyint((p.lsb[i] / 2 - p.offset[i]) / RESOLUTION);
        const double add = std::max(start - base, 0.0), sub = std::max(base - start, 0.0);
        const int shift = std::clamp(int(std::ceil(std::log2(reach))) - 1, 0, 15);
        const double factor = std::min(65535.0, std::nearbyint(std::ldexp(1, 16 + shift) / reach));
        if (p.lsb[i] * l.tolerance < RESOLUTION || p.offset[i] < 0 || base + top + add > 65535 || sub > 65535 ||
            factor < 32768)
            return false;
        p.fixed[i] = {uint32_t(factor) * TWICE, uint32_t(add) * TWICE, uint32_t(sub) * TWICE, uint32_t(shift), 0,
                      uint32_t(p.high) * TWICE, 0};
    }
    return true;
}

// Two parts: exact, in units of the resolution of real levels.
bool pack_two_words(Plan& p, const Levels& level) {
    int tallest = 1;
    for (int t = 0; t < p.tiles; t++) tallest = std::max(tallest, p.bounds[t + 1] - p.bounds[t]);
    p.base = 0;
    p.part_shift = std::min(15, int(std::floor(std::log2(65535.0 / tallest))));
    p.parts = 2;
    p.unit = float(RESOLUTION);
    start_words(p);
    const size_t part = size_t(p.lookups()) * 5;
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
            p.words[at + c * column + part] = uint16_t(high);
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

// Sums must be exact in float32 whatever their order.
void check_floats(const Plan& p, const Levels& level) {
    int mask = 0;
    for (int m : p.digit_mask) mask = std::max(mask, m);
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
                    if (sum[c] * mask > EXACT_IN_FLOAT) throw std::invalid_argument("analog sums exceed 24 bits");
                    if (!p.limited && (sum[c] * level.unit * mask + 1) * p.tiles > 1u << 31)
                        throw std::invalid_argument("codes of all row tiles exceed 31 bits");
                }
            }
}

}  // namespace

Plan build(const Layer& l, Machine machine, bool count) {
    Plan p{};
    if (l.noise_variance > 0) machine.tiles = false;
    const Levels level(l);
    p.groups = l.groups, p.rows = l.rows, p.stored = l.stored;
    p.bounds = l.bounds, p.tiles = int(l.bounds.size()) - 1;
    p.built = l.built;
    for (size_t i = 0; i < p.built.size(); i += p.stored)
        p.used.push_back(std::any_of(p.built.begin() + i, p.built.begin() + i + p.stored, [](uint8_t b) { return b; }));
    p.digit_shift = l.digit_shift, p.digit_mask = l.digit_mask, p.digit_weight = l.digit_weight;
    p.digits = int(l.digit_weight.size());
    p.planes = l.slices * int(l.side_weight.size());
    for (double s : l.slice_weight)
        for (double k : l.side_weight) p.plane_weight.push_back(s * k);
    p.signed_sums = l.subtracts;
    p.digital_offset = l.digital_offset;
    p.lsb = l.lsb, p.offset = l.offset;
    const auto& n = l.range_shape;
    p.stride = {n[0] > 1 ? n[1] * n[2] * n[3] : 0, n[1] > 1 ? n[2] * n[3] : 0, n[2] > 1 ? n[3] : 0, n[3] > 1 ? 1 : 0};
    for (int s = 0; s < p.planes; s++) p.plane_range.push_back(s / int(l.side_weight.size()) * p.stride[2]);
    p.limited = l.limited, p.low = l.low, p.high = l.high;
    if (p.digits > MOST_DIGITS) throw std::invalid_argument("more than 16 input digits");
    p.horner_shift.assign(p.digits, 0);
    for (int i = 0; i + 1 < p.digits; i++)
        p.horner_shift[i] = int(std::lround(std::log2(std::abs(p.digit_weight[i + 1]) / p.digit_weight[i])));
    p.doubling = std::all_of(p.horner_shift.begin(), p.horner_shift.end() - 1, [](int s) { return s == 1; });
    p.bias.assign(p.lsb.size(), 0);

    int room = 0;
    if (l.integral && l.noise_variance == 0 && (machine.tiles ? tiles_of_bytes(p, l, room) : pack_bytes(p, l, level, machine.index_bits))) {
        p.sums = Sums::bytes;
        for (size_t i = 0; i < p.lsb.size(); i++) {
            const double first = std::floor((p.offset[i] - p.least) / p.lsb[i]) + 1;
            p.bias[i] = std::max(p.offset[i] > 0 || p.least < 0 ? int(first) : 0, p.limited ? -p.low : 0);
        }
        if (!count && codes_fit(p)) find_rules(p);
        if (p.fixed.empty()) {
            p.horner = false;
            if (p.limited) p.bias.assign(p.lsb.size(), -p.low);
            fill_tables(p);
        }
        if (machine.tiles) {
            room = std::min(room, p.shift_in);
            p.tile_shift = p.shift_in - room;
            pack_tiles(p, level, 1, room);
        }
        return p;
    }
    p.bias.assign(p.lsb.size(), p.limited ? -p.low : 0);
    if (p.signed_sums && !p.limited) throw std::invalid_argument("codes of signed sums have no end");
    for (size_t i = 0; i < p.lsb.size(); i++) {
        p.real.push_back({float(p.offset[i]), float(1 / p.lsb[i]), p.offset[i], p.lsb[i]});
        if (double(float(p.offset[i])) != p.offset[i]) p.divide = true;
    }
    p.divide |= !l.multiply;
    check_floats(p, level);
    p.horner = false;
    int mask = 0;
    for (int m : p.digit_mask) mask = std::max(mask, m);
    if ((!l.integral || l.noise_variance > 0) && machine.words && mask == 1) {
        p.sums = Sums::words;
        if (!count && pack_one_word(p, level, l)) {
            if (machine.tiles && pack_tiles(p, level, RESOLUTION, 0)) p.words.clear();
            return p;
        }
        p.fixed.clear();
        p.horner = false;
        p.bias.assign(p.lsb.size(), p.limited ? -p.low : 0);
        if (!machine.tiles && pack_two_words(p, level)) return p;
        p.words.clear();
        p.parts = 0;
    }
    p.base = 0;
    const double unit = l.integral ? 1 : RESOLUTION;
    if (machine.tiles && pack_tiles(p, level, unit, 0)) {
        p.sums = Sums::ints;
        p.unit = float(unit);
        return p;
    }
    p.sums = Sums::floats;
    pack_floats(p, level);
    return p;
}

}  // namespace bitline
