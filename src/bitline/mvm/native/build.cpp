#include "build.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "pack.hpp"
#include "rules.hpp"

namespace bitline {

Plan build(const Layer& l, Machine machine, bool count) {
    Plan p{};
    if (l.noise_variance > 0) machine.tiles = false;
    const Levels level(l);
    p.groups = l.groups, p.rows = l.rows, p.stored = l.stored;
    p.bounds = l.bounds, p.tiles = int(l.bounds.size()) - 1;
    p.built = l.built;
    for (size_t i = 0; i < p.built.size(); i += p.stored)
        p.used.push_back(std::any_of(p.built.begin() + i, p.built.begin() + i + p.stored, [](uint8_t b) { return b; }));
    p.digit_shift = l.digit_shift, p.digit_mask = l.digit_mask, p.digit_weight = l.digit_weight;
    p.digits = int(l.digit_weight.size());
    p.planes = l.slices * int(l.side_weight.size());
    for (double s : l.slice_weight)
        for (double k : l.side_weight) p.plane_weight.push_back(s * k);
    p.signed_sums = l.subtracts;
    p.digital_offset = l.digital_offset;
    p.lsb = l.lsb, p.offset = l.offset;
    const auto& n = l.range_shape;
    p.stride = {n[0] > 1 ? n[1] * n[2] * n[3] : 0, n[1] > 1 ? n[2] * n[3] : 0, n[2] > 1 ? n[3] : 0, n[3] > 1 ? 1 : 0};
    for (int s = 0; s < p.planes; s++) p.plane_range.push_back(s / int(l.side_weight.size()) * p.stride[2]);
    p.limited = l.limited, p.low = l.low, p.high = l.high;
    if (p.digits > MOST_DIGITS) throw std::invalid_argument("more than 16 input digits");
    p.horner_shift.assign(p.digits, 0);
    for (int i = 0; i + 1 < p.digits; i++)
        p.horner_shift[i] = int(std::lround(std::log2(std::abs(p.digit_weight[i + 1]) / p.digit_weight[i])));
    p.doubling = std::all_of(p.horner_shift.begin(), p.horner_shift.end() - 1, [](int s) { return s == 1; });
    p.bias.assign(p.lsb.size(), 0);

    int room = 0;
    if (l.integral && l.noise_variance == 0 && (machine.tiles ? tiles_of_bytes(p, l, room) : pack_bytes(p, l, level, machine.index_bits))) {
        p.sums = Sums::bytes;
        for (size_t i = 0; i < p.lsb.size(); i++) {
            const double first = std::floor((p.offset[i] - p.least) / p.lsb[i]) + 1;
            p.bias[i] = std::max(p.offset[i] > 0 || p.least < 0 ? int(first) : 0, p.limited ? -p.low : 0);
        }
        if (!count && codes_fit(p)) find_rules(p);
        if (p.fixed.empty()) {
            p.horner = false;
            if (p.limited) p.bias.assign(p.lsb.size(), -p.low);
            fill_tables(p);
        }
        if (machine.tiles) {
            room = std::min(room, p.shift_in);
            p.tile_shift = p.shift_in - room;
            pack_tiles(p, level, 1, room);
        }
        return p;
    }
    p.bias.assign(p.lsb.size(), p.limited ? -p.low : 0);
    if (p.signed_sums && !p.limited) throw std::invalid_argument("codes of signed sums have no end");
    p.horner = false;
    int mask = 0;
    for (int m : p.digit_mask) mask = std::max(mask, m);
    const bool words = (!l.integral || l.noise_variance > 0) && machine.words && mask == 1;
    if (words) {
        p.sums = Sums::words;
        if (!count && pack_one_word(p, level, l)) {
            if (machine.tiles && pack_tiles(p, level, RESOLUTION, 0)) p.words.clear();
            return p;
        }
        p.fixed.clear();
        p.horner = false;
        p.bias.assign(p.lsb.size(), p.limited ? -p.low : 0);
    }
    for (size_t i = 0; i < p.lsb.size(); i++) {
        p.real.push_back({float(p.offset[i]), float(1 / p.lsb[i]), p.offset[i], p.lsb[i]});
        if (double(float(p.offset[i])) != p.offset[i]) p.divide = true;
    }
    const int places = p.divide ? -1 : l.places();
    p.divide |= places < 0;
    if (!p.divide) p.zero = std::ldexp(1.5f, 23 - places);
    check_floats(p, level, l);
    if (words) {
        if (!machine.tiles && pack_two_words(p, level)) return p;
        p.words.clear();
        p.parts = 0;
    }
    p.base = 0;
    const double unit = l.integral ? 1 : RESOLUTION;
    if (machine.tiles && pack_tiles(p, level, unit, 0)) {
        p.sums = Sums::ints;
        p.unit = float(unit);
        return p;
    }
    p.sums = Sums::floats;
    pack_floats(p, level);
    return p;
}

}  // namespace bitline
