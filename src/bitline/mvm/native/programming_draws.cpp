#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "programming.hpp"
#include "programming_ways.hpp"

namespace bitline {
namespace {

// M. Matsumoto and T. Nishimura's generator (ACM TOMACS 8, 1998, doi:10.1145/272991.272995) as torch keeps it on a CPU:
// its seed in 8 bytes, how many numbers are left and whether it is seeded in 4 each, which number is next in 8, and 624
// numbers in 8 each.
class Mersenne {
  public:
    static constexpr int COUNT = 624, APART = 397, HEADER = 24;

    Mersenne(uint8_t* bytes, int64_t size) : state(bytes) {
        if (size < HEADER + 8 * COUNT) throw std::invalid_argument("the generator has another state");
        int32_t left;
        std::memcpy(&left, state + 8, sizeof left);
        for (int i = 0; i < COUNT; i++) std::memcpy(numbers + i, state + HEADER + 8 * i, sizeof *numbers);
        next = left == 1 ? COUNT : COUNT + 1 - left;
        temper();
    }
    ~Mersenne() {
        if (!drawn) return;
        const int32_t left = COUNT + 1 - next;
        const uint64_t at = next;
        std::memcpy(state + 8, &left, sizeof left);
        std::memcpy(state + 16, &at, sizeof at);
        for (int i = 0; i < COUNT; i++) {
            const uint64_t number = numbers[i];
            std::memcpy(state + HEADER + 8 * i, &number, sizeof number);
        }
    }

    // As many of the next numbers as there are without another turn, at most `most`.
    INLINE const uint32_t* some(int64_t most, int64_t& count) {
        drawn = true;
        if (next == COUNT) turn();
        count = std::min<int64_t>(most, COUNT - next);
        const uint32_t* from = tempered + next;
        next += int(count);
        return from;
    }
    INLINE uint64_t pair() {
        int64_t one;
        const uint64_t high = *some(1, one);
        return high << 32 | *some(1, one);
    }

  private:
    static uint32_t mixed(uint32_t a, uint32_t b, uint32_t far) {
        const uint32_t both = (a & 0x80000000u) | (b & 0x7fffffffu);
        return far ^ both >> 1 ^ (b & 1 ? 0x9908b0dfu : 0u);
    }
    INLINE void turn() {
        constexpr int REST = COUNT - APART;
        for (int i = 0; i < REST; i++) numbers[i] = mixed(numbers[i], numbers[i + 1], numbers[i + APART]);
        // What is read was written 227 numbers before.
        for (int start = REST; start < COUNT - 1; start += REST) {
            const int end = std::min(start + REST, COUNT - 1);
            uint32_t before[REST];
            std::memcpy(before, numbers + start - REST, (end - start) * sizeof *before);
            for (int i = start; i < end; i++) numbers[i] = mixed(numbers[i], numbers[i + 1], before[i - start]);
        }
        numbers[COUNT - 1] = mixed(numbers[COUNT - 1], numbers[0], numbers[APART - 1]);
        next = 0;
        temper();
    }
    INLINE void temper() {
        for (int i = 0; i < COUNT; i++) {
            uint32_t y = numbers[i];
            y ^= y >> 11;
            y ^= y << 7 & 0x9d2c5680u;
            y ^= y << 15 & 0xefc60000u;
            tempered[i] = y ^ y >> 18;
        }
    }

    uint8_t* state;
    uint32_t numbers[COUNT], tempered[COUNT];
    int next;
    bool drawn = false;
};

INLINE void draw_body(Mersenne& m, uint32_t* out, int64_t n) {
    for (int64_t done = 0, count; done < n; done += count) {
        const uint32_t* from = m.some(n - done, count);
        std::memcpy(out + done, from, count * sizeof *out);
    }
}
EACH(void, draw, (Mersenne & m, uint32_t* out, int64_t n), (m, out, n))

INLINE void faults_body(Mersenne& m, int16_t* out, int64_t n, float off, float on, int16_t top) {
    for (int64_t done = 0, count; done < n; done += count) {
        const uint32_t* __restrict from = m.some(n - done, count);
        int16_t* __restrict to = out + done;
        for (int64_t i = 0; i < count; i++) {
            const float u = float(int32_t(from[i] & 0xffffff)) * 0x1p-24f;
            const int16_t low = u < off ? int16_t(0) : int16_t(-1);
            to[i] = u >= on ? top : low;
        }
    }
}
EACH(void, faults, (Mersenne & m, int16_t* out, int64_t n, float off, float on, int16_t top),
     (m, out, n, off, on, top))

constexpr int RUN = 1024;

// Which of a run lie in a tail, in order.
INLINE int find_tails(const int16_t* __restrict drawn, int n, int low, int high, int* __restrict tails) {
    uint8_t flags[RUN] = {};
    for (int i = 0; i < n; i++) flags[i] = uint8_t((drawn[i] < int16_t(low)) | (drawn[i] >= int16_t(high)));
    int count = 0;
    for (int start = 0; start < n; start += 8) {
        uint64_t eight;
        std::memcpy(&eight, flags + start, sizeof eight);
        if (!eight) continue;
        for (int i = start; i < start + 8; i++) tails[count] = i, count += flags[i];
    }
    return count;
}

// Edges fall: how many of them, a power of two, are above each share of a tail.
INLINE void above(const int64_t* __restrict edges, int size, const int64_t* __restrict share, int* __restrict found,
                  int count) {
    for (int j = 0; j < count; j++) found[j] = 0;
    for (int step = size / 2; step; step /= 2)
        for (int j = 0; j < count; j++) found[j] += edges[found[j] + step - 1] > share[j] ? step : 0;
    for (int j = 0; j < count; j++) found[j] += edges[found[j]] > share[j];
}

INLINE void luck_body(Mersenne& m, int16_t* out, int64_t n, int low, int high, const int64_t* edges, int size,
                      int64_t most) {
    auto* words = reinterpret_cast<uint64_t*>(out);
    draw(m, reinterpret_cast<uint32_t*>(out), (n + 3) / 4 * 2);
    for (int64_t i = 0; i < (n + 3) / 4; i++) words[i] = words[i] << 32 | words[i] >> 32;  // the first is the higher
    int tails[RUN + 8], found[RUN];
    int64_t share[RUN];
    for (int64_t start = 0; start < n; start += RUN) {
        int16_t* at = out + start;
        const int count = find_tails(at, int(std::min<int64_t>(RUN, n - start)), low, high, tails);
        for (int j = 0; j < count; j++) share[j] = int64_t(m.pair()) & (most - 1);
        above(edges, size, share, found, count);
        for (int j = 0; j < count; j++) {
            int16_t& x = at[tails[j]];
            x = int16_t(x < 0 ? low - found[j] : high + found[j] - 1);
        }
    }
}
EACH(void, luck,
     (Mersenne & m, int16_t* out, int64_t n, int low, int high, const int64_t* edges, int size, int64_t most),
     (m, out, n, low, high, edges, size, most))

}  // namespace

void draw_numbers(uint8_t* state, int64_t size, uint32_t* out, int64_t n) {
    Mersenne m(state, size);
    draw(m, out, n);
}

void draw_faults(uint8_t* state, int64_t size, int16_t* out, int64_t n, float off, float on, int top) {
    Mersenne m(state, size);
    faults(m, out, n, off, on, int16_t(top));
}

void draw_luck(uint8_t* state, int64_t size, int16_t* out, int64_t n, int low, int high, const int64_t* edges, int count,
               int64_t most) {
    Mersenne m(state, size);
    luck(m, out, n, low, high, edges, count, most);
}

template <class T>
void reach(const uint8_t* levels, const int16_t* stuck, const int16_t* luck, int64_t n, const T* exact,
           const T* outcomes, T* real) {
    if (!stuck) {
        for (int64_t i = 0; i < n; i++) real[i] = outcomes[levels[i] * 65536 + luck[i] + 32768];
        return;
    }
    for (int64_t i = 0; i < n; i++)
        real[i] = stuck[i] >= 0 ? exact[stuck[i]] : outcomes[levels[i] * 65536 + luck[i] + 32768];
}
template void reach(const uint8_t*, const int16_t*, const int16_t*, int64_t, const float*, const float*, float*);
template void reach(const uint8_t*, const int16_t*, const int16_t*, int64_t, const int16_t*, const int16_t*, int16_t*);

}  // namespace bitline
