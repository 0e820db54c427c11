#include "rules.hpp"

#include <algorithm>
#include <stdexcept>

namespace bitline {
namespace {

// The rule that gives the right code for every whole sum, if 16 bits suffice.
bool find_rule(const Plan& p, int range, int shift_in, FixedRule& rule) {
    const double lsb = p.lsb[range], offset = p.offset[range], scale = 1 << shift_in;
    const int bias = p.bias[range];
    const bool ties = std::fmod(lsb, 2) == 0;
    const double start = (lsb / 2 - offset + bias * lsb) * scale, reach = lsb * scale;
    int shift = int(std::ceil(std::log2(reach))) - 1;
    shift = std::clamp(shift, 0, 15);
    const double slope = std::ldexp(1, 16 + shift) / reach;
    const int low = p.limited ? p.low + bias : 0;
    const int high = p.limited ? p.high + bias : 65535;
    if (high > 65535 || (ties && reach > 65535)) return false;
    std::vector<int> want(p.most - p.least + 1);
    for (int a = p.least; a <= p.most; a++) {
        const double code = rounded(a, offset, lsb) + bias;
        want[a - p.least] = int(std::clamp(code, double(low), double(high)));
    }
    for (int df = 0; df < 9; df++)
        for (int da = 0; da < 7; da++) {
            const double factor = std::nearbyint(slope) + (df % 2 ? (df + 1) / 2 : -df / 2);
            const double add = std::floor(start) + (da % 2 ? (da + 1) / 2 : -da / 2);
            if (factor < 1 || factor > 65535 || (p.least * scale) + add < 0 || p.most * scale + add > 65535) continue;
            const uint32_t f = uint32_t(factor), tie = ties ? uint32_t(reach) : 0;
            bool right = true;
            for (int a = p.least; right && a <= p.most; a++) {
                const uint32_t v = uint32_t(a * int(scale) + int(add));
                uint32_t k = (v * f >> 16) >> shift;
                if (ties) k -= k & 1 & (k * tie == v);
                right = int(std::clamp<uint32_t>(k, low, high)) == want[a - p.least];
            }
            if (right) {
                rule = {f * TWICE, uint32_t(add) * TWICE, 0, uint32_t(shift), uint32_t(low) * TWICE,
                        uint32_t(high) * TWICE, tie * TWICE};
                return true;
            }
        }
    return false;
}

// Whether no sum reaches beyond the codes.
bool never_clips(const Plan& p) {
    if (!p.limited) return true;
    for (size_t i = 0; i < p.lsb.size(); i++)
        if (rounded(p.most, p.offset[i], p.lsb[i]) > p.high || rounded(p.least, p.offset[i], p.lsb[i]) < p.low)
            return false;
    return true;
}

}  // namespace

void find_rules(Plan& p) {
    const size_t ranges = p.lsb.size();
    for (int shift_in = p.most_shift; shift_in >= 0; shift_in--) {
        p.fixed.assign(ranges, {});
        p.shift_in = shift_in;
        bool right = true, floor = false, ties = false;
        for (size_t i = 0; right && i < ranges; i++) {
            right = find_rule(p, int(i), shift_in, p.fixed[i]);
            floor |= p.fixed[i].low > 0;
            ties |= p.fixed[i].lsb > 0;
        }
        p.rule = ties ? Rule::ties : floor ? Rule::floor : Rule::plain;
        if (right && p.rule == Rule::plain && never_clips(p)) p.rule = Rule::free;
        if (right) return;
    }
    p.fixed.clear();
}

void fill_tables(Plan& p) {
    for (size_t i = 0; i < p.lsb.size(); i++) {
        std::vector<uint16_t> table(p.most - p.least + 1);
        std::vector<uint8_t> beyond(table.size());
        for (int a = p.least; a <= p.most; a++) {
            const double code = rounded(a, p.offset[i], p.lsb[i]);
            const double kept = p.limited ? std::clamp(code, double(p.low), double(p.high)) : code;
            if (kept + p.bias[i] > 65535) throw std::invalid_argument("codes exceed 16 bits");
            table[a - p.least] = uint16_t(kept + p.bias[i]);
            beyond[a - p.least] = kept != code;
        }
        p.tables.push_back(std::move(table));
        p.beyond.push_back(std::move(beyond));
    }
}

bool codes_fit(Plan& p) {
    double most = 0, digits = 0;
    for (size_t i = 0; i < p.lsb.size(); i++)
        most = std::max(most, p.limited ? double(p.high + p.bias[i])
                                        : rounded(p.most, p.offset[i], p.lsb[i]) + p.bias[i]);
    for (double w : p.digit_weight) digits += std::abs(w);
    const bool negative = p.digit_weight.back() < 0;
    p.horner = p.stride[1] == 0 && (negative ? most * -p.digit_weight.back() < 32768 : most * digits < 65536);
    return p.horner || most * p.tiles < 65536;
}

}  // namespace bitline
