// From a placed layer and its ADC ranges to a Plan: which kind of sums, which rules, packed levels.
#pragma once

#include <functional>

#include "plan.hpp"

namespace bitline {

struct Machine {
    int index_bits;  // of a look-up in bytes
    bool words;      // looks up 16-bit words
    bool tiles = false;  // multiplies tiles of bytes
};

// What Python knows of a layer.
struct Layer {
    int groups, sides, slices, rows, stored;
    bool integral, subtracts;
    const uint8_t* bytes;   // levels where integral, (groups, sides, slices, rows, stored)
    const int16_t* steps;   // else whole multiples of RESOLUTION, or null
    const float* reals;     // else levels
    std::vector<uint8_t> built;  // which columns there are, (groups, tiles, stored); empty: all
    std::vector<int> bounds, digit_shift, digit_mask;
    std::vector<double> digit_weight, slice_weight, side_weight;
    int digital_offset;
    std::array<int, 4> range_shape;
    std::vector<double> lsb, offset;
    bool limited;
    int low, high;
    std::function<int()> places;  // binary places of a code in float32 that make it exact; -1: float32 has too few
    double noise_variance;  // of a cell that a digit of 1 drives, level^2; 0 without read noise
};

// Throws std::invalid_argument where the layer does not fit.
Plan build(const Layer&, Machine, bool count);

}  // namespace bitline
