#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

#include "programming.hpp"
#include "programming_ways.hpp"

namespace bitline {
namespace {

constexpr float STEP = 0.25f, GAIN = 1.0f;

// A run of weights. One step is made for all of them before the next, so that what one waits for, another does
// meanwhile, and planes are copied, since many that lie as these do in memory share one set of a cache.
struct Run {
    static constexpr int LENGTH = 512;
    uint8_t levels[MOST_CELLS][LENGTH], asked[MOST_CELLS][LENGTH];
    int16_t stuck[MOST_CELLS][LENGTH], luck[MOST_CELLS][LENGTH];
    float real[MOST_CELLS][LENGTH];
    int other[LENGTH];  // 1 where a pair's weight is on the second side
    int working[LENGTH];
    float remainder[LENGTH], left[LENGTH], kept[LENGTH];
    // of those that a step is about
    int here[LENGTH], poor[LENGTH], at[LENGTH], plane[LENGTH];
    float from[LENGTH], now[LENGTH], edge[LENGTH], reached[LENGTH];
};

// Tables, by attempts that are left, cell and pattern of working cells.
struct Tables {
    int cells;
    std::vector<int32_t> own, next;  // where the cell's begins, and that of the first cell from it on that works
    std::vector<float> edge;         // of the latter
    std::vector<uint16_t> outcomes;  // sign and steps, half as many bytes; empty where they have more bits
    static constexpr float STEPS = 128;

    explicit Tables(const Turns& t) : cells(int(t.side.size())), outcomes(t.count) {
        for (int64_t i = 0; i < t.count && !outcomes.empty(); i++) {
            const float steps = t.outcomes[i] * STEPS;
            if (std::fabs(steps) < 32768 && steps == std::floor(steps))
                outcomes[i] = uint16_t(int(std::fabs(steps)) | int(std::signbit(steps)) << 15);
            else
                outcomes.clear();
        }
        const size_t patterns = size_t(1) << cells;
        own.assign(t.luck.size() * (cells + 1) * patterns, 0), next = own, edge.assign(own.size(), 0);
        for (size_t tries = 0; tries < t.luck.size(); tries++)
            for (int cell = cells - 1; cell >= 0; cell--)
                for (size_t working = 1; working < patterns >> cell; working++) {
                    const size_t at = (tries * (cells + 1) + cell) * patterns + working;
                    const size_t later = at - working + patterns + (working >> 1);
                    own[at] = int32_t(t.start[(tries * cells + cell) * patterns + working]);
                    next[at] = working & 1 ? own[at] : next[later];
                    edge[at] = working & 1 ? t.edge[cell] : edge[later];
                }
    }
    int64_t begin(int tries, int cell) const { return (int64_t(tries - 1) * (cells + 1) + cell) << cells; }
};

// What of a remainder lies beyond a table, and what the table says of the rest, square weight units.
INLINE float looked_up(const float* __restrict table, int at, float edge, float remainder, float& outside) {
    const float beyond = std::fabs(remainder) - edge, high = remainder > -edge ? remainder : -edge;
    const float place = ((high < edge ? high : edge) + edge) / STEP;
    const int low = int(place);
    const float part = place - float(low), below = table[at + low], above = table[at + low + 1];
    const float share = part < 0.5f ? part : part - 1, base = part < 0.5f ? below : above;
    outside = beyond > 0 ? beyond : 0;
    return std::fma(share, above - below, base);
}

// What is expected to be left of so much, square weight units, for `count` weights from tables at `at`.
INLINE void expect(const float* __restrict table, const int* __restrict at, const float* __restrict edge,
                   const float* __restrict remainder, float* __restrict left, int count) {
    for (int j = 0; j < count; j++) {
        float outside;
        const float inside = looked_up(table, at[j], edge[j], remainder[j], outside), root = std::sqrt(inside) + outside;
        left[j] = root * root;
    }
}

// Where in tables at `at` the levels for so much are.
INLINE void find(float edge, const float* __restrict remainder, int* __restrict at, int count) {
    const float most = 2 * edge / STEP;
    for (int j = 0; j < count; j++) {
        const float place = (remainder[j] + edge) / STEP, high = place > 0 ? place : 0;
        at[j] += int(std::nearbyint(high < most ? high : most));
    }
}

// What is to be written, less what stuck cells are.
INLINE void begin(const Turns& t, Run& run, const int (*plane)[MOST_CELLS], int length) {
    const int cells = int(t.side.size());
    for (int i = 0; i < length; i++) run.other[i] = 0, run.remainder[i] = 0, run.working[i] = 0;
    if (t.sides == 2)
        for (int p = int(t.slices); p < cells; p++)
            for (int i = 0; i < length; i++) run.other[i] |= run.levels[p][i] != 0;
    for (int k = 0; k < cells; k++)
        for (int i = 0; i < length; i++) {
            const int p = plane[run.other[i]][k], level = run.levels[p][i];
            const int stuck = t.stuck ? run.stuck[p][i] : -1;
            const float fixed = t.exact[stuck < 0 ? 0 : stuck];
            run.remainder[i] += t.exact[level] * t.worth[k];
            run.remainder[i] -= stuck < 0 ? 0.0f : fixed * t.worth[k];
            run.working[i] |= int(stuck < 0) << k;
            run.asked[p][i] = uint8_t(level), run.real[p][i] = fixed;
        }
}

// Ask and write cell k of `count` weights; `attempt` has the luck of each plane, as far apart as `apart`.
INLINE int64_t ask(const Turns& t, const Tables& tables, Run& run, const int (*plane)[MOST_CELLS], int k, int tries,
                   const int* list, int count, const int16_t* attempt, int64_t apart) {
    const int most = int(t.luck.size());
    const int32_t* own = tables.own.data() + tables.begin(tries, k);
    for (int j = 0; j < count; j++) {
        const int i = list[j];
        run.from[j] = run.remainder[i], run.at[j] = own[run.working[i] >> k], run.plane[j] = plane[run.other[i]][k];
    }
    find(t.edge[k], run.from, run.at, count);
    int64_t writes = 0;
    const auto write = [&](auto outcome) {
        for (int j = 0; j < count; j++) {
            const int i = list[j], p = run.plane[j], level = t.best[run.at[j]];
            const float wrote = outcome(level * 65536 + attempt[p * apart + i] + 32768);
            writes += level != 0;
            run.asked[p][i] = uint8_t(level), run.real[p][i] = wrote, run.reached[j] = wrote;
        }
    };
    if (tables.outcomes.empty())
        write([whole = t.outcomes](int at) { return whole[at]; });
    else
        write([small = tables.outcomes.data()](int at) {
            const float steps = float(small[at] & 0x7fff) / Tables::STEPS;
            uint32_t bits;
            std::memcpy(&bits, &steps, sizeof bits);
            bits |= uint32_t(small[at] >> 15) << 31;
            float reached;
            std::memcpy(&reached, &bits, sizeof bits);
            return reached;
        });
    for (int j = 0; j < count; j++) run.from[j] -= run.reached[j] * t.worth[k];
    for (int j = 0; j < count; j++) run.left[list[j]] = run.from[j];
    if (most == 1) return writes;
    const int64_t after = tables.begin(most, k + 1);
    for (int j = 0; j < count; j++) {
        const int64_t working = after + (run.working[list[j]] >> (k + 1));
        run.at[j] = tables.next[working], run.edge[j] = tables.edge[working];
    }
    expect(t.left, run.at, run.edge, run.from, run.now, count);
    for (int j = 0; j < count; j++) run.kept[list[j]] = run.now[j];
    return writes;
}

// Those of a list of weights that are worth another attempt, with `tries` that are left.
INLINE int choose(const Turns& t, const Tables& tables, Run& run, int k, int tries, const int* list, int count) {
    int poor = 0;
    for (int j = 0; j < count; j++) run.poor[poor] = list[j], poor += run.kept[list[j]] > GAIN;
    const int64_t begin = tables.begin(tries, k);
    for (int j = 0; j < poor; j++) {
        const int i = run.poor[j];
        const int64_t working = begin + (run.working[i] >> k);
        run.from[j] = run.remainder[i], run.at[j] = tables.next[working], run.edge[j] = tables.edge[working];
    }
    expect(t.left, run.at, run.edge, run.from, run.now, poor);
    int pays = 0;
    for (int j = 0; j < poor; j++) {
        const int i = run.poor[j];
        run.poor[pays] = i, pays += run.now[j] + GAIN < run.kept[i];
    }
    return pays;
}

INLINE std::pair<int64_t, int64_t> in_turn_body(const Turns& t) {
    const int cells = int(t.side.size()), most = int(t.luck.size());
    int64_t writes = 0, again = 0;
    int plane[2][MOST_CELLS];  // of each cell in turn, for weights on either side
    for (int k = 0; k < cells; k++)
        for (int other = 0; other < 2; other++) plane[other][k] = (t.side[k] ^ other) * int(t.slices) + t.slice[k];
    const Tables tables(t);
    const auto memory = std::make_unique<Run>();
    Run& run = *memory;
    for (int64_t g = 0; g < t.groups; g++)
        for (int64_t w0 = 0; w0 < t.weights; w0 += Run::LENGTH) {
            const int64_t origin = g * cells * t.weights + w0;
            const int length = int(std::min<int64_t>(Run::LENGTH, t.weights - w0));
            for (int p = 0; p < cells; p++) {
                const int64_t at = origin + p * t.weights;
                std::memcpy(run.levels[p], t.levels + at, length);
                if (t.stuck) std::memcpy(run.stuck[p], t.stuck + at, length * sizeof(int16_t));
                std::memcpy(run.luck[p], t.luck[0] + at, length * sizeof(int16_t));
            }
            begin(t, run, plane, length);
            for (int k = 0; k < cells; k++) {
                int working = 0;
                for (int i = 0; i < length; i++) run.here[working] = i, working += run.working[i] >> k & 1;
                writes += ask(t, tables, run, plane, k, most, run.here, working, run.luck[0], Run::LENGTH);
                int count = working;
                for (int tries = most - 1; tries > 0 && count; tries--) {
                    count = choose(t, tables, run, k, tries, tries == most - 1 ? run.here : run.poor, count);
                    ask(t, tables, run, plane, k, tries, run.poor, count, t.luck[most - tries] + origin, t.weights);
                    again += count;
                }
                for (int j = 0; j < working; j++) run.remainder[run.here[j]] = run.left[run.here[j]];
            }
            for (int p = 0; p < cells; p++) {
                const int64_t at = origin + p * t.weights;
                std::memcpy(t.asked + at, run.asked[p], length);
                std::memcpy(t.real + at, run.real[p], length * sizeof(float));
            }
        }
    return {writes + again, again};
}
INLINE void look_body(const float* __restrict table, float edge, const float* __restrict remainder, int64_t n,
                      float* __restrict inside, float* __restrict outside) {
    for (int64_t i = 0; i < n; i++) inside[i] = looked_up(table, 0, edge, remainder[i], outside[i]);
}
EACH(void, look, (const float* table, float edge, const float* remainder, int64_t n, float* inside, float* outside),
     (table, edge, remainder, n, inside, outside))

using Counts = std::pair<int64_t, int64_t>;
EACH(Counts, in_turn, (const Turns& t), (t))

// 1 where a pair's weight is on the second side.
INLINE int other_side(const Turns& t, int64_t origin) {
    bool any = false;
    if (t.sides == 2)
        for (int64_t s = 0; s < t.slices; s++) any |= t.levels[origin + (t.slices + s) * t.weights] != 0;
    return any;
}

}  // namespace

std::pair<int64_t, int64_t> write_in_turn(const Turns& t) { return in_turn(t); }

void look_up(const float* table, float edge, const float* remainder, int64_t n, float* inside, float* outside) {
    look(table, edge, remainder, n, inside, outside);
}

std::vector<int> working_patterns(const Turns& t) {
    const int cells = int(t.side.size()), all = (1 << cells) - 1;
    if (!t.stuck) return {all};
    std::vector<uint8_t> seen(size_t(1) << cells);
    for (int64_t g = 0; g < t.groups; g++)
        for (int64_t w = 0; w < t.weights; w++) {
            const int64_t origin = g * t.sides * t.slices * t.weights + w;
            const int other = other_side(t, origin);
            int working = 0;
            for (int k = 0; k < cells; k++)
                working |= int(t.stuck[origin + ((t.side[k] ^ other) * t.slices + t.slice[k]) * t.weights] < 0) << k;
            seen[working] = 1;
        }
    std::vector<int> patterns;
    for (int p = 0; p <= all; p++)
        if (seen[p]) patterns.push_back(p);
    return patterns;
}

}  // namespace bitline
