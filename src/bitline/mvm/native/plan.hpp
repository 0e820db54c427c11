// One layer on its crossbars, laid out for the product: what every instruction set works from.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "noise.hpp"
#include "threads.hpp"

namespace bitline {

constexpr double RESOLUTION = 1.0 / 128;  // of real levels
constexpr int LANES = 64;          // input vectors that are multiplied together
constexpr int MOST_DIGITS = 16;    // of an input
constexpr int MOST_CHUNKS = 32;    // byte accumulators of one analog sum
constexpr int WORD_ROWS = 6;       // of a look-up of words
constexpr int COLUMN_BLOCK = 64;   // stored columns whose codes are held at once

enum class Sums {
    bytes,   // integer levels, digits looked up several rows at a time, accumulated in bytes
    words,   // real levels in 16-bit units, looked up six rows at a time
    ints,    // tile products: sums of more than 16 bits
    floats,  // anything whose sums are exact in float32
};

// Conversion of a 16-bit sum: code = clip(mulhi((sum << shift_in) + add, factor) >> shift, low, high), and one less where
// that code is odd and lies exactly half an LSB above the sum.
// Words saturate at zero: v = (sum + add) - sub. Their factor is rounded up, and so may be their code; what is left of v,
// (v << left) - code * lsb, is exact in 16 bits, and less than `rest` where the code is one too high. It is `rest` in a
// tie, which an odd code loses.
// Every field but the shifts is held twice in 32 bits, to be spread over a vector by a plain load.
struct FixedRule {
    uint32_t factor = 0, add = 0, sub = 0, shift = 0, low = 0, high = 0, lsb = 0, left = 0, rest = 0;
};

// Without ends, with the high one, both, both and ties; words where left and rest are 0, and all words.
enum class Rule { free, plain, floor, ties, words, fine_words };

// Conversion in floating point: code = round((a - offset) * factor), rounded to some binary places before that so that
// ties are found (see bitline.mvm.adc), or a division in doubles.
struct FloatRule {
    float offset = 0, factor = 1;
    double exact_offset = 0, lsb = 1;
};

struct Plan {
    // The product.
    int groups, rows, stored, tiles, digits, planes;
    std::vector<int> bounds;                 // (tiles + 1)
    std::vector<int> digit_shift, digit_mask;
    std::vector<double> digit_weight, plane_weight;
    std::vector<uint8_t> built;              // columns that there are, (groups, tiles, stored); empty: all
    std::vector<uint8_t> used;               // row tiles that have any, (groups, tiles); empty: all
    bool signed_sums;                        // a pair is subtracted before its conversion
    int digital_offset;

    // Conversion. A range's index is g * stride_g + p * stride_p + s * stride_s + c * stride_c.
    std::vector<double> lsb, offset;
    std::array<int, 4> stride;
    std::vector<int> plane_range;            // what a plane adds to the index of its range
    bool limited;
    int low, high;
    std::vector<int> bias;                   // added to the codes of a range so that none is negative
    bool horner;                             // one LSB for all digits, whose codes add up in 16 bits
    bool divide;                             // float32 has too few places
    float zero;                              // where floats lie as far apart as the places of a code
    std::vector<FixedRule> fixed;
    Rule rule;
    std::vector<FloatRule> real;
    std::vector<std::vector<uint16_t>> tables;  // of a range, sum - least -> biased code; empty where fixed rules do
    std::vector<std::vector<uint8_t>> beyond;   // whether that sum clips
    int least, most;                            // analog sum
    std::vector<int> horner_shift;
    bool doubling;                              // all of these are 1

    Sums sums;
    // Sums::bytes. A lookup covers `pieces` pieces of `piece_rows` rows each.
    int index_bits, pieces, piece_rows, codes, lookups_per_chunk, shift_in;
    std::vector<int> first_lookup;                // of each tile, (tiles + 1)
    std::vector<uint8_t> packed;                  // (groups, stored, planes, lookups, pieces)
    std::shared_ptr<uint8_t> expand;              // (pieces, codes, table), aligned
    bool signed_bytes;
    // Sums::words: 16-bit levels, one or two parts that weigh 1 and 2^part_shift.
    int parts, part_shift;
    float unit;                                   // of the lowest of two parts, levels
    uint16_t base;                                // what a sum of one part starts from, so that none is negative
    std::vector<uint16_t> words;                  // as `word` says, and a few more
    // Tile products: levels of one byte, or of two that weigh 1 and 256. Those of Sums::bytes come scaled by 2^shift_in.
    // A tile of levels is 16 columns, or all where there are fewer, of `tile_rows` rows at a pitch of 64.
    bool tiled, tile_signed;                      // levels, or their high byte
    int tile_parts, tile_columns, tile_rows;
    int tile_shift;                               // digits come scaled by 2^tile_shift
    int most_shift = 6;                           // of shift_in
    std::vector<int> first_block;                 // of each row tile, (tiles + 1), in tiles of levels
    std::shared_ptr<uint8_t> tile_levels;         // (groups, tiles, stored / 16, planes, parts, blocks, columns, 64)
    // Sums::floats.
    std::vector<float> levels;                    // (groups, planes, ceil(stored / 4), rows, 4)

    bool there(int g, int t, int c) const { return built.empty() || built[(size_t(g) * tiles + t) * stored + c]; }
    bool reads(int g, int t) const { return used.empty() || used[size_t(g) * tiles + t]; }
    bool any(int g, int t, int c0, int c1) const {
        for (int c = c0; c < c1; c++)
            if (there(g, t, c)) return true;
        return false;
    }
    int lookups() const { return first_lookup.back(); }
    // Where the words of a column in a row tile are: (groups, tiles, stored, planes, parts, look-ups of the tile * WORD_ROWS),
    // in the order in which they are read.
    size_t word(int g, int t, int c, int plane) const {
        const size_t columns = size_t(stored) * planes * parts * WORD_ROWS;
        return columns * (size_t(g) * lookups() + first_lookup[t]) + (size_t(c) * planes + plane) * parts * part_words(t);
    }
    size_t part_words(int t) const { return size_t(first_lookup[t + 1] - first_lookup[t]) * WORD_ROWS; }
    int range(int g, int p, int plane, int c) const {
        return g * stride[0] + p * stride[1] + plane_range[plane] + c * stride[3];
    }
};

// Input vectors inside a larger tensor: row offsets and vector offsets in elements (bytes).
struct View {
    const uint8_t* data;
    std::vector<int64_t> row;      // (rows) of one group
    std::vector<int64_t> vector;   // (vectors)
    int64_t group;                 // from one group to the next
    Noise noise;
};

struct Output {
    double* exact = nullptr;       // (vectors, groups, stored) contiguous, or
    float* real = nullptr;         // scaled, at offset[vector] + channel * channel_stride
    std::vector<int64_t> offset;
    int64_t channel_stride = 1;
    const double* factor = nullptr;  // (groups * stored)
    const float* bias = nullptr;     // (groups * stored)
    int64_t* clipped = nullptr;      // conversions out of range, counted if given
};

using Run = void (*)(const Plan&, const View&, const Output&, Tasks&, bool shortcuts);

inline int64_t blocks_of(const View& v) { return (int64_t(v.vector.size()) + LANES - 1) / LANES; }
inline int64_t column_blocks(const Plan& p) { return (p.stored + COLUMN_BLOCK - 1) / COLUMN_BLOCK; }
inline int64_t tasks_of(const Plan& p, const View& v) { return blocks_of(v) * p.groups * column_blocks(p); }

}  // namespace bitline
