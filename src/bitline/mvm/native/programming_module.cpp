// The Python side of `programming.hpp`.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>

#include "programming.hpp"

namespace nb = nanobind;

namespace bitline {
namespace {

template <class T>
using Array = nb::ndarray<T, nb::c_contig, nb::device::cpu>;
using Cells = std::optional<Array<const int16_t>>;

void same(bool fits) {
    if (!fits) throw std::invalid_argument("arrays of cells differ in size");
}

const int16_t* data(const Cells& cells, size_t size) {
    same(!cells || cells->size() == size);
    return cells ? cells->data() : nullptr;
}

void errors(Array<const float> table, Array<const int32_t> pattern, Array<const int32_t> value,
            std::vector<int64_t> bounds, bool measured, bool narrow, bool small,
            Array<double> total, Array<double> power) {
    same(table.ndim() == 2 && pattern.ndim() == 2 && value.ndim() == 2 && pattern.shape(0) == value.shape(0) &&
         total.size() == value.shape(1) * pattern.shape(1) && power.size() == total.size() && bounds.size() > 1 &&
         bounds.back() == int64_t(value.shape(0)));
    Errors e{table.data(), int64_t(table.shape(0)), int64_t(table.shape(1)), pattern.data(), value.data(),
             int64_t(value.shape(0)), int64_t(pattern.shape(1)), int64_t(value.shape(1)), bounds.data(),
             int64_t(bounds.size()) - 1, measured, narrow, small, total.data(), power.data()};
    nb::gil_scoped_release release;
    sum_errors(e);
}

int64_t positions(size_t cells, const Array<int32_t>& code, int64_t groups, int64_t per) {
    same(groups > 0 && int64_t(code.size()) % groups == 0 && cells == code.size() * size_t(per));
    return int64_t(code.size()) / groups;
}

void states(Array<const int16_t> stuck, int64_t groups, int64_t cells, Array<int32_t> code) {
    const int64_t each = positions(stuck.size(), code, groups, cells);
    nb::gil_scoped_release release;
    code_states(stuck.data(), groups, cells, each, code.data());
}

void values(Array<const uint8_t> levels, int64_t groups, int64_t cells, int base, Array<int32_t> code) {
    const int64_t each = positions(levels.size(), code, groups, cells);
    nb::gil_scoped_release release;
    code_levels(levels.data(), groups, cells, each, base, code.data());
}

Turns turns(const Array<const uint8_t>& levels, const Cells& stuck, std::vector<int> side, std::vector<int> slice) {
    same(levels.ndim() == 5 && side.size() == levels.shape(1) * levels.shape(2) && slice.size() == side.size() &&
         side.size() <= MOST_CELLS);
    Turns t{};
    t.levels = levels.data(), t.stuck = data(stuck, levels.size());
    t.groups = int64_t(levels.shape(0)), t.sides = int64_t(levels.shape(1)), t.slices = int64_t(levels.shape(2));
    t.weights = int64_t(levels.shape(3) * levels.shape(4));
    t.side = std::move(side), t.slice = std::move(slice);
    return t;
}

void inside(Array<const float> table, float edge, Array<const float> remainder, Array<float> inside,
            Array<float> outside) {
    same(remainder.size() == inside.size() && outside.size() == inside.size() &&
         double(table.size()) >= 2 * double(edge) / 0.25 + 2);
    nb::gil_scoped_release release;
    look_up(table.data(), edge, remainder.data(), int64_t(inside.size()), inside.data(), outside.data());
}

std::vector<int> working(Array<const uint8_t> levels, Cells stuck, std::vector<int> side, std::vector<int> slice) {
    const Turns t = turns(levels, stuck, std::move(side), std::move(slice));
    nb::gil_scoped_release release;
    return working_patterns(t);
}

std::pair<int64_t, int64_t> in_turn(Array<const uint8_t> levels, Cells stuck, std::vector<Array<const int16_t>> luck,
                                    std::vector<int> side, std::vector<int> slice, std::vector<float> worth,
                                    std::vector<float> edge, Array<const float> exact, Array<const float> outcomes,
                                    Array<const float> left, Array<const uint8_t> best, Array<const int64_t> start,
                                    Array<uint8_t> asked, Array<float> real) {
    Turns t = turns(levels, stuck, std::move(side), std::move(slice));
    const size_t cells = t.side.size();
    same(!luck.empty() && asked.size() == levels.size() && real.size() == levels.size() && worth.size() == cells &&
         edge.size() == cells && start.size() == luck.size() * cells << cells);
    for (const auto& attempt : luck) same(attempt.size() == levels.size()), t.luck.push_back(attempt.data());
    t.worth = std::move(worth), t.edge = std::move(edge);
    t.exact = exact.data(), t.outcomes = outcomes.data(), t.count = int64_t(outcomes.size());
    t.left = left.data(), t.best = best.data(), t.start = start.data();
    t.asked = asked.data(), t.real = real.data();
    nb::gil_scoped_release release;
    return write_in_turn(t);
}

template <class T>
void move(Array<const T> from, Array<T> to, Array<const int64_t> column, Array<const bool> other,
          std::optional<std::vector<int>> tops) {
    same(from.ndim() == 5 && to.size() == from.size() && column.ndim() == 2 && other.size() == column.size() &&
         column.shape(0) == from.shape(0) && column.shape(1) <= from.shape(4) &&
         (!tops || tops->size() == from.shape(2)));
    const Move m{int64_t(from.shape(0)), int64_t(from.shape(1)), int64_t(from.shape(2)), int64_t(from.shape(3)),
                 int64_t(from.shape(4)), int64_t(column.shape(1)), column.data(), other.data(), tops ? &*tops : nullptr};
    nb::gil_scoped_release release;
    move_columns(m, from.data(), to.data());
}

void numbers(Array<uint8_t> state, Array<int32_t> out) {
    draw_numbers(state.data(), int64_t(state.size()), reinterpret_cast<uint32_t*>(out.data()), int64_t(out.size()));
}

void faults(Array<uint8_t> state, Array<int16_t> out, float off, float on, int top) {
    nb::gil_scoped_release release;
    draw_faults(state.data(), int64_t(state.size()), out.data(), int64_t(out.size()), off, on, top);
}

void luck(Array<uint8_t> state, Array<int16_t> out, int64_t n, int low, int high, Array<const int64_t> edges,
          int64_t most) {
    same(int64_t(out.size()) >= (n + 3) / 4 * 4 && edges.size() > 0 && (edges.size() & (edges.size() - 1)) == 0);
    nb::gil_scoped_release release;
    draw_luck(state.data(), int64_t(state.size()), out.data(), n, low, high, edges.data(), int(edges.size()), most);
}

template <class T>
void written(Array<const uint8_t> levels, Cells stuck, Array<const int16_t> luck, Array<const T> exact,
             Array<const T> outcomes, Array<T> real) {
    same(luck.size() == levels.size() && real.size() == levels.size());
    const int16_t* at = data(stuck, levels.size());
    nb::gil_scoped_release release;
    reach(levels.data(), at, luck.data(), int64_t(levels.size()), exact.data(), outcomes.data(), real.data());
}

}  // namespace

void define_programming(nb::module_& m) {
    m.def("states", &states);
    m.def("values", &values);
    m.def("errors", &errors);
    m.def("inside", &inside);
    m.def("working", &working, nb::arg(), nb::arg().none(), nb::arg(), nb::arg());
    m.def("write_in_turn", &in_turn, nb::arg(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
          nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg());
    m.def("move", &move<uint8_t>, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none());
    m.def("move", &move<int16_t>, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none());
    m.def("move", &move<float>, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none());
    m.def("numbers", &numbers);
    m.def("faults", &faults);
    m.def("luck", &luck);
    m.def("written", &written<int16_t>, nb::arg(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg(), nb::arg());
    m.def("written", &written<float>, nb::arg(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg(), nb::arg());
}

}  // namespace bitline
