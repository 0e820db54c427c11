#include "check.hpp"

#include <random>

namespace bitline {
namespace {

constexpr int ROWS = 150, COLUMNS = 21, VECTORS = 70, SLICES = 2;

std::vector<double> multiply(const Layer& l, const std::vector<uint8_t>& x, Machine machine, Run run) {
    const Plan plan = build(l, machine, false);
    View v;
    v.data = x.data();
    v.group = ROWS;
    for (int r = 0; r < ROWS; r++) v.row.push_back(r);
    for (int i = 0; i < VECTORS; i++) v.vector.push_back(int64_t(i) * ROWS);
    std::vector<double> y(VECTORS * COLUMNS);
    Output out;
    out.exact = y.data();
    Tasks tasks(tasks_of(plan, v), 1);
    run(plan, v, out, tasks, true);
    return y;
}

}  // namespace

bool agree(Machine a, Run run_a, Machine b, Run run_b) {
    std::mt19937 random(1);
    std::vector<uint8_t> x(VECTORS * ROWS), bytes(2 * SLICES * ROWS * COLUMNS);
    std::vector<float> reals(bytes.size());
    for (auto& v : x) v = uint8_t(random() & 15);
    for (auto& v : bytes) v = uint8_t(random() & 3);
    for (auto& v : reals) v = float((random() & 511) * RESOLUTION);
    for (const bool integral : {true, false})
        for (const bool subtracts : {true, false}) {
            Layer l{};
            l.groups = 1, l.sides = 1 + subtracts, l.slices = SLICES, l.rows = ROWS, l.stored = COLUMNS;
            l.integral = integral, l.subtracts = subtracts;
            l.bytes = bytes.data(), l.reals = reals.data();
            l.bounds = {0, 100, ROWS};
            for (int i = 0; i < 4; i++) {
                l.digit_shift.push_back(i), l.digit_mask.push_back(1);
                l.digit_weight.push_back(1 << i);
            }
            l.slice_weight = {1, 4}, l.side_weight = {1};
            l.range_shape = {1, 1, 1, 1};
            l.lsb = {5}, l.offset = {0};
            l.limited = true;
            l.low = subtracts ? -16 : 0, l.high = subtracts ? 15 : 31;
            l.places = [] { return -1; };
            if (multiply(l, x, a, run_a) != multiply(l, x, b, run_b)) return false;
        }
    return true;
}

}  // namespace bitline
