#include <algorithm>

#include "programming.hpp"

namespace bitline {

template <class T>
void move_columns(const Move& m, const T* from, T* to) {
    const int64_t plane = m.rows * m.stored;
    for (int64_t g = 0; g < m.groups; g++)
        for (int64_t p = 0; p < m.sides * m.slices; p++) {
            const int64_t side = p / m.slices, slice = p % m.slices;
            const int64_t here = (g * m.sides * m.slices + p) * plane;
            const int64_t there = m.tops ? here : ((g * m.sides + (m.sides - 1 - side)) * m.slices + slice) * plane;
            const T top = m.tops ? T((*m.tops)[slice]) : T(0);
            const int64_t* column = m.from + g * m.columns;
            const bool* other = m.other + g * m.columns;
            for (int64_t r = 0; r < m.rows; r++) {
                const T *plain = from + here + r * m.stored, *turned = from + there + r * m.stored;
                T* at = to + here + r * m.stored;
                for (int64_t c = 0; c < m.columns; c++) {
                    const T x = plain[column[c]], y = turned[column[c]];
                    at[c] = other[c] ? (m.tops ? T(top - y) : y) : x;
                }
                std::copy(plain + m.columns, plain + m.stored, at + m.columns);
            }
        }
}
template void move_columns(const Move&, const uint8_t*, uint8_t*);
template void move_columns(const Move&, const int16_t*, int16_t*);
template void move_columns(const Move&, const float*, float*);

}  // namespace bitline
