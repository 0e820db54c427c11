// Read noise: normal numbers that are a pure function of seed, image, position, row tile and conversion. The same integers
// as bitline.physics.normal makes.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace bitline {

constexpr int NOISE_ROUNDS = 7;
constexpr uint16_t NOISE_MULTIPLIER = 0xE875, NOISE_WEYL = 0x9E37;
constexpr double NOISE_SIGMA = 4096;  // integer that stands for one standard deviation
constexpr uint16_t FAR = 32768 - 32;  // from which 15 bits on a number lies in a tail
constexpr int TAIL_KNOTS = 32 * 32 + 1;

struct Noise {
    bool on = false;
    uint64_t seed = 0;
    int64_t first_image = 0, positions = 1;
    double variance = 0;  // of a cell that a digit of 1 drives, both sides of a pair that is subtracted; level^2
};

inline uint64_t noise_mix(uint64_t x) {
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9;
    x = (x ^ x >> 27) * 0x94D049BB133111EB;
    return x ^ x >> 31;
}

inline uint64_t noise_key(const Noise& n, int64_t vector, int tile) {
    const uint64_t image = n.first_image + vector / n.positions, position = vector % n.positions;
    const uint64_t h = noise_mix(noise_mix(image * 0x9E3779B97F4A7C15 + position) ^ n.seed);
    return noise_mix(h + uint64_t(tile) * 0xD1B54A32D192ED03);
}

// Standard deviation of a sum of some variance, level^2, in steps of 1/1024 level.
inline int64_t noise_steps(double variance) { return int64_t(std::nearbyint(std::sqrt(variance) * (32768 * 128 / NOISE_SIGMA))); }

// The quantile function: linear between knots of the upper half, between more in its last segment, and in the tail, one
// 1024th of it, between 32 in each octave of the share that is left.
struct Quantiles {
    alignas(64) uint16_t knot[32], slope[32], tail_knot[32], tail_slope[32];
    int16_t table[65536];
    int far[TAIL_KNOTS];

    Quantiles() {
        const auto inner = [](int i) { return std::lround(quantile(std::min(0.99, 0.5 + i / 64.0)) * 4088.65); };
        const auto outer = [](int i) {
            return std::lround(quantile(std::min(1 - std::ldexp(1, -11), 0.5 + (31 + i / 32.0) / 64)) * NOISE_SIGMA);
        };
        for (int i = 0; i < 32; i++) {
            knot[i] = uint16_t(inner(i)), slope[i] = uint16_t(inner(i + 1) - inner(i));
            tail_knot[i] = uint16_t(outer(i)), tail_slope[i] = uint16_t(outer(i + 1) - outer(i));
        }
        for (int m = 0; m < 32768; m++) {
            const int segment = m >> 10, fraction = m & 1023, step = fraction >> 5, rest = fraction & 31;
            const int z = m >= FAR       ? 0
                          : segment < 31 ? knot[segment] + (slope[segment] * (fraction << 6) >> 16)
                                         : tail_knot[step] + (tail_slope[step] * (rest << 11) >> 16);
            table[m] = int16_t(z), table[32768 + m] = int16_t(-z);
        }
        for (int k = 0; k < TAIL_KNOTS; k++) {
            const double share = std::ldexp(1 + k % 32 / 32.0, k / 32 - 32);
            far[k] = int(std::lround(-quantile(std::ldexp(share, -11)) * NOISE_SIGMA));
        }
    }

   private:
    static double quantile(double p) {
        double low = -10, high = 10;
        for (int i = 0; i < 80; i++) {
            const double middle = (low + high) / 2;
            (std::erfc(-middle / std::sqrt(2.0)) / 2 < p ? low : high) = middle;
        }
        return low;
    }
};

inline const Quantiles& quantiles() {
    static const Quantiles q;
    return q;
}

// The normal number of a conversion whose uniform number u lies in a tail; another counter says where in it.
inline int16_t far_normal(uint32_t counter, const uint16_t* key, uint16_t u) {
    uint16_t left = key[0] ^ uint16_t(counter), right = key[1] ^ uint16_t(counter >> 16);
    for (int i = 0; i < NOISE_ROUNDS; i++) {
        const uint32_t product = uint32_t(left) * NOISE_MULTIPLIER;
        left = uint16_t(product >> 16) ^ uint16_t(key[2 + i % 2] + NOISE_WEYL * i) ^ right;
        right = uint16_t(product);
    }
    const uint32_t w = std::max(1u, uint32_t(left) << 16 | right);
    const int octave = 31 - __builtin_clz(w);
    const uint32_t fraction = (w << (31 - octave)) & 0x7fffffff;
    const int* at = quantiles().far + octave * 32 + (fraction >> 26);
    const int z = at[0] + ((at[1] - at[0]) * int(fraction >> 10 & 0xffff) >> 16);
    return int16_t(u < 32768 ? z : -z);
}

}  // namespace bitline
