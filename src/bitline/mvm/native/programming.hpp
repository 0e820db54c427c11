// What is drawn and decided when cells are written, in loops; `bitline.physics` and `bitline.programming` say what.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace bitline {

constexpr int MOST_CELLS = 24;  // of a weight, that may be written in turn

// Errors that stuck cells leave, for every kernel on every column; see `bitline.programming.remap`.
struct Errors {
    const float* table;        // (patterns, values), whole numbers
    int64_t patterns, values;
    const int32_t* pattern;    // of each cell position, (rows, columns)
    const int32_t* value;      // of each weight, (rows, kernels)
    int64_t rows, columns, kernels;
    const int64_t* bounds;     // of row tiles, (tiles + 1,)
    int64_t tiles;
    bool measured;             // the mean over each row tile is taken away
    bool narrow;               // sums of squares of a row tile are below 2^31
    double *total, *power;     // (kernels, columns)
};
void sum_errors(const Errors&);

// Cells of weights written in turn; see `bitline.physics.readback`.
struct Turns {
    const uint8_t* levels;  // (groups, sides, slices, weights)
    const int16_t* stuck;   // the same shape; null: all cells work
    std::vector<const int16_t*> luck;  // of each attempt, the same shape
    int64_t groups, sides, slices, weights;
    std::vector<int> side, slice;  // in the order of writing
    std::vector<float> worth, edge;
    const float* exact;            // (levels,)
    const float* outcomes;         // (levels, 65536)
    const float* left;             // all tables of expected squares, one after the other
    const uint8_t* best;           // and of levels
    const int64_t* start;          // of each table, (attempts, cells, 2^cells); -1: there is none
    uint8_t* asked;                // the shape of levels
    float* real;                   // the same
};
std::vector<int> working_patterns(const Turns&);          // all there are, bit k of cell k
std::pair<int64_t, int64_t> write_in_turn(const Turns&);  // writes, and how many of them again

int64_t count_tails(const int16_t* drawn, int64_t n, int low, int high);
void settle_tails(int16_t* drawn, int64_t n, int low, int high, const int64_t* rest, const int64_t* edges, int64_t tail);

void reach(const uint8_t* levels, const int16_t* stuck, const int16_t* luck, int64_t n, const float* exact,
           const float* outcomes, float* real);

}  // namespace bitline
