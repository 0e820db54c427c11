// Levels packed in the order in which a kernel reads them. Each returns whether they fit.
#pragma once

#include "levels.hpp"

namespace bitline {

constexpr int COLUMNS_AT_ONCE = 16;  // as many streams are written side by side

// Whether integer levels make 16-bit sums of tiles; how much levels and digits can be scaled up within their bytes.
bool tiles_of_bytes(Plan&, const Layer&, int& room);

// Tiles of levels in whole units of `unit`, if two bytes hold them; levels of one byte come scaled by 2^shift.
bool pack_tiles(Plan&, const Levels&, double unit, int shift);

// Bytes that are looked up by `index_bits` bits of input digits.
bool pack_bytes(Plan&, const Layer&, const Levels&, int index_bits);

// One part: sums of at most 16 bits.
bool pack_one_word(Plan&, const Levels&, const Layer&);

// Two parts, in units of the resolution of real levels.
bool pack_two_words(Plan&, const Levels&);

// Levels as float32, whose sums must be exact whatever their order: check_floats throws std::invalid_argument.
void check_floats(const Plan&, const Levels&, const Layer&);
void pack_floats(Plan&, const Levels&);

}  // namespace bitline
