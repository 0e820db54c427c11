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
    bool small;                // errors are between -1024 and 1024
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
    int64_t count;                 // of outcomes
    const float* left;             // all tables of expected squares, one after the other
    const uint8_t* best;           // and of levels
    const int64_t* start;          // of each table, (attempts, cells, 2^cells); 0, two zeros: none
    uint8_t* asked;                // the shape of levels
    float* real;                   // the same
};
std::vector<int> working_patterns(const Turns&);          // all there are, bit k of cell k
// What of remainders lies within a table, as the square that it says, and how much beyond it.
void look_up(const float* table, float edge, const float* remainder, int64_t n, float* inside, float* outside);
std::pair<int64_t, int64_t> write_in_turn(const Turns&);  // writes, and how many of them again

// Numbers to a base whose digits are cells, (groups, cells, positions), the first the least: states of stuck ones, 0
// where a cell works, 1 where it is stuck at 0, else 2; or levels.
void code_states(const int16_t* stuck, int64_t groups, int64_t cells, int64_t positions, int32_t* code);
void code_levels(const uint8_t* levels, int64_t groups, int64_t cells, int64_t positions, int base, int32_t* code);

// Columns moved, of which some are read on the other side, or as what lacks to the highest level of their slice.
struct Move {
    int64_t groups, sides, slices, rows, stored, columns;  // stored ones behind the columns stay
    const int64_t* from;                                   // of each column, (groups, columns)
    const bool* other;                                     // (groups, columns)
    const std::vector<int>* tops;                          // (slices,); null: the other side
};
template <class T>
void move_columns(const Move&, const T* from, T* to);

// Numbers of a torch generator of the CPU, whose state goes on; arrays of luck have room for a multiple of four.
void draw_numbers(uint8_t* state, int64_t size, uint32_t* out, int64_t n);
void draw_faults(uint8_t* state, int64_t size, int16_t* out, int64_t n, float off, float on, int top);
void draw_luck(uint8_t* state, int64_t size, int16_t* out, int64_t n, int low, int high, const int64_t* edges, int count,
               int64_t most);

template <class T>
void reach(const uint8_t* levels, const int16_t* stuck, const int16_t* luck, int64_t n, const T* exact,
           const T* outcomes, T* real);

}  // namespace bitline
