// From a sum to its code: the cheapest rule that gives the right code for every sum, or a table of them.
#pragma once

#include <cmath>

#include "plan.hpp"

namespace bitline {

constexpr uint32_t TWICE = 0x10001;  // holds 16 bits twice in 32

inline double rounded(double a, double offset, double lsb) { return std::nearbyint((a - offset) / lsb); }

// Rules in 16 bits for the sums from p.least to p.most; p.fixed stays empty where there are none.
void find_rules(Plan&);

// Tables of the codes of these sums. Throws std::invalid_argument where codes exceed 16 bits.
void fill_tables(Plan&);

// Whether codes, added up over digits or row tiles, stay within 16 bits; chooses which of the two.
bool codes_fit(Plan&);

}  // namespace bitline
