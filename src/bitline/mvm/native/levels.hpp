// Levels of a layer's cells as the product takes them.
#pragma once

#include "build.hpp"

namespace bitline {

// What a plane of the product adds at (row, col); a pair that is subtracted first is one plane.
struct Levels {
    const Layer& l;
    double unit;                  // 1, or RESOLUTION
    bool fits = true;             // all levels are whole units of 16 bits

    explicit Levels(const Layer& l) : l(l), unit(l.integral ? 1 : RESOLUTION) {
        if (l.steps && l.sides == 1) return;  // of pairs, planes lie in another order
        const size_t matrix = size_t(l.rows) * l.stored, converted = l.side_weight.size();
        whole.resize(matrix * l.groups * l.slices * converted);
        int16_t* to = whole.data();
        for (int g = 0; g < l.groups; g++)
            for (int slice = 0; slice < l.slices; slice++)
                for (size_t side = 0; side < converted; side++, to += matrix) {
                    const size_t at = ((size_t(g) * l.sides + side) * l.slices + slice) * matrix;
                    const size_t other = l.subtracts ? size_t(l.slices) * matrix : 0;
                    if (l.integral)
                        fill(l.bytes + at, other, matrix, 1, to);
                    else if (l.steps)
                        fill(l.steps + at, other, matrix, 1, to);
                    else
                        fill(l.reals + at, other, matrix, float(1 / RESOLUTION), to);
                }
    }
    const int16_t* row(int g, int plane, int r) const {
        return begin() + ((size_t(g) * l.slices * l.side_weight.size() + plane) * l.rows + r) * l.stored;
    }
    // All of them, (groups, planes, rows, stored), units.
    const int16_t* begin() const { return whole.empty() ? l.steps : whole.data(); }
    const int16_t* end() const { return begin() + size_t(l.groups) * l.slices * l.side_weight.size() * l.rows * l.stored; }
    int units(int g, int plane, int r, int c) const { return row(g, plane, r)[c]; }
    // Exact also where it does not fit.
    double operator()(int g, int plane, int r, int c) const {
        const int converted = int(l.side_weight.size());
        const double v = at(g, plane % converted, plane / converted, r, c);
        return l.subtracts ? v - at(g, 1, plane / converted, r, c) : v;
    }

   private:
    std::vector<int16_t> whole;  // empty where they are the layer's own

    template <class T>
    void fill(const T* from, size_t other, size_t n, float scale, int16_t* to) {
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
        return l.integral ? l.bytes[i] : l.steps ? l.steps[i] * RESOLUTION : l.reals[i];
    }
};

}  // namespace bitline
