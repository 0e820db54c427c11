// Read noise: normal numbers that are a pure function of seed, image, position, row tile and conversion. The same integers
// as bitline.physics.normal makes.
#pragma once

#include <cmath>
#include <cstdint>

namespace bitline {

constexpr int NOISE_ROUNDS = 7;
constexpr uint16_t NOISE_MULTIPLIER = 0xE875, NOISE_WEYL = 0x9E37;
constexpr float NOISE_SIGMA = 4096;  // integer that stands for one standard deviation

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

// The quantile function: linear between knots of the upper half, and between more in its last segment.
struct Quantiles {
    alignas(64) uint16_t knot[32], slope[32], tail_knot[32], tail_slope[32];
    int16_t table[65536];

    Quantiles() {
        fill(0, 1.0, knot, slope);
        fill(31, 1.0 / 32, tail_knot, tail_slope);
        for (int m = 0; m < 32768; m++) {
            const int segment = m >> 10, fraction = m & 1023, step = fraction >> 5, rest = fraction & 31;
            const int z = segment < 31 ? knot[segment] + (slope[segment] * (fraction << 6) >> 16)
                                       : tail_knot[step] + (tail_slope[step] * (rest << 11) >> 16);
            table[m] = int16_t(z), table[32768 + m] = int16_t(-z);
        }
    }

   private:
    static void fill(double first, double each, uint16_t* knot, uint16_t* slope) {
        for (int i = 0; i < 32; i++) {
            knot[i] = uint16_t(quantile((first + i * each) / 32));
            slope[i] = uint16_t(quantile((first + (i + 1) * each) / 32) - knot[i]);
        }
    }
    static long quantile(double share) {
        const double p = std::min(0.5 + share / 2, 1 - std::ldexp(1, -17));
        double low = 0, high = 10;
        for (int i = 0; i < 80; i++) {
            const double middle = (low + high) / 2;
            (std::erfc(-middle / std::sqrt(2.0)) / 2 < p ? low : high) = middle;
        }
        return std::lround(low * 4086.66);
    }
};

inline const Quantiles& quantiles() {
    static const Quantiles q;
    return q;
}

}  // namespace bitline
