#include <algorithm>
#include <cstdlib>

#include "pack.hpp"

namespace bitline {

bool pack_tiles(Plan& p, const Levels& level, double unit, int shift) {
    const int grain = int(level.unit / unit);
    if (!level.fits) return false;
    int64_t low = 0, high = 0;
    for (int16_t v : level) low = std::min<int64_t>(low, v), high = std::max<int64_t>(high, v);
    low *= grain, high *= grain;
    if (high > 65535) return false;
    const bool negative = low < 0;
    if (negative && (low < -32768 || high > 32767)) return false;
    p.tile_parts = negative ? low < -128 || high > 127 ? 2 : 1 : high > 255 ? 2 : 1;
    p.tiled = true, p.tile_signed = negative;
    int tallest = 1;
    for (int t = 0; t < p.tiles; t++) tallest = std::max(tallest, p.bounds[t + 1] - p.bounds[t]);
    const int blocks = (tallest + 63) / 64;
    p.tile_rows = ((tallest + blocks - 1) / blocks + 3) / 4 * 4;
    p.tile_columns = std::min(16, p.stored);
    p.first_block.assign(1, 0);
    for (int t = 0; t < p.tiles; t++)
        p.first_block.push_back(p.first_block.back() + (p.bounds[t + 1] - p.bounds[t] + p.tile_rows - 1) / p.tile_rows);
    const int sixteens = (p.stored + 15) / 16;
    const size_t bytes = size_t(p.groups) * p.first_block.back() * sixteens * p.planes * p.tile_parts * p.tile_columns * 64;
    p.tile_levels.reset(static_cast<uint8_t*>(std::aligned_alloc(64, bytes)), std::free);
    std::memset(p.tile_levels.get(), 0, bytes);
    uint8_t* to = p.tile_levels.get();
    for (int g = 0; g < p.groups; g++)
        for (int t = 0; t < p.tiles; t++)
            for (int c0 = 0; c0 < p.stored; c0 += 16)
                for (int s = 0; s < p.planes; s++)
                    for (int part = 0; part < p.tile_parts; part++)
                        for (int r0 = p.bounds[t]; r0 < p.bounds[t + 1]; r0 += p.tile_rows, to += p.tile_columns * 64)
                            for (int r = r0; r < std::min(r0 + p.tile_rows, p.bounds[t + 1]); r++)
                                for (int c = c0; c < std::min(p.stored, c0 + 16); c++) {
                                    const int v = level.units(g, s, r, c) * grain;
                                    to[(c - c0) * 64 + r - r0] = uint8_t(p.tile_parts == 1 ? v * (1 << shift) : v >> 8 * part);
                                }
    return true;
}

bool tiles_of_bytes(Plan& p, const Layer& l, int& room) {
    int most = 0, mask = 0, tallest = 0;
    const size_t n = size_t(l.groups) * l.sides * l.slices * l.rows * l.stored;
    for (size_t i = 0; i < n; i++) most = std::max<int>(most, l.bytes[i]);
    for (int m : p.digit_mask) mask = std::max(mask, m);
    for (int t = 0; t < p.tiles; t++) tallest = std::max(tallest, p.bounds[t + 1] - p.bounds[t]);
    const int limit = l.subtracts ? 127 : 255;
    if (most > limit || mask > 255 || int64_t(most) * mask * tallest > (l.subtracts ? 32767 : 65535)) return false;
    p.most = most * mask * tallest, p.least = l.subtracts ? -p.most : 0;
    const auto shifts = [](int value, int limit) {
        int i = 0;
        while (i < 6 && value << (i + 1) <= limit) i++;
        return i;
    };
    room = shifts(most, limit);
    p.most_shift = std::min(6, room + shifts(mask, 255));
    return true;
}

bool pack_bytes(Plan& p, const Layer& l, const Levels& level, int index_bits) {
    int least = 0, most = 0;
    const size_t n = size_t(l.groups) * l.sides * l.slices * l.rows * l.stored;
    for (size_t i = 0; i < n; i++) most = std::max<int>(most, l.bytes[i]);
    if (l.subtracts) least = -most;
    int mask = 0, width = 0;
    for (int m : p.digit_mask) mask = std::max(mask, m);
    while (mask >> width) width++;
    if (width > index_bits) return false;
    const int limit = l.subtracts ? 127 : 255;
    int tallest = 0;
    for (int t = 0; t < p.tiles; t++) tallest = std::max(tallest, p.bounds[t + 1] - p.bounds[t]);
    p.least = least * mask * tallest, p.most = most * mask * tallest;
    if (p.most > (l.subtracts ? 32767 : 65535)) return false;
    // Rows of a look-up: as many as index bits allow and a byte holds, in pieces whose levels make one code.
    const int span = most - least + 1;
    if (span > 256 || most * mask > limit) return false;
    p.piece_rows = width == 1 && span * span <= 256 ? 2 : 1;
    p.pieces = index_bits / width / p.piece_rows;
    while (p.pieces > 1 && p.pieces * p.piece_rows * most * mask > limit) p.pieces--;
    if (p.pieces == 4 || p.pieces == 5) p.pieces = 3;
    if (p.pieces * p.piece_rows * most * mask > limit) {
        p.piece_rows = 1;
        if (p.pieces * most * mask > limit) return false;
    }
    const int rows = p.pieces * p.piece_rows, each = std::max(1, rows * most * mask);
    p.index_bits = rows * width;
    p.lookups_per_chunk = limit / each;
    p.first_lookup.assign(1, 0);
    for (int t = 0; t < p.tiles; t++)
        p.first_lookup.push_back(p.first_lookup.back() + (p.bounds[t + 1] - p.bounds[t] + rows - 1) / rows);
    if (((tallest + rows - 1) / rows + p.lookups_per_chunk - 1) / p.lookups_per_chunk > MOST_CHUNKS) return false;
    p.signed_bytes = l.subtracts;

    const int table = index_bits == 6 ? 64 : 16, codes = p.piece_rows == 2 ? span * span : span;
    p.codes = codes;
    const size_t bytes = (size_t(p.pieces) * codes * table + 63) / 64 * 64;
    p.expand.reset(static_cast<uint8_t*>(std::aligned_alloc(64, bytes)), std::free);
    std::memset(p.expand.get(), 0, bytes);
    for (int i = 0; i < p.pieces; i++)
        for (int code = 0; code < codes; code++)
            for (int e = 0; e < table; e++) {
                int sum = 0, rest = code;
                for (int j = 0; j < p.piece_rows; j++, rest /= span)
                    sum += (e >> (i * p.piece_rows + j) * width & mask) * (rest % span + least);
                p.expand.get()[(size_t(i) * codes + code) * table + e] = uint8_t(sum);
            }
    p.packed.resize(size_t(p.groups) * p.stored * p.planes * p.lookups() * p.pieces);
    const size_t plane = size_t(p.lookups()) * p.pieces, column = plane * p.planes;
    const std::vector<int16_t> none(p.stored, 0);
    for (int g = 0; g < p.groups; g++)
        for (int s = 0; s < p.planes; s++)
            for (int c0 = 0; c0 < p.stored; c0 += COLUMNS_AT_ONCE) {
                const int n = std::min(p.stored - c0, COLUMNS_AT_ONCE);
                uint8_t* to = p.packed.data() + (size_t(g) * p.stored + c0) * column + s * plane;
                for (int t = 0; t < p.tiles; t++)
                    for (int r = p.bounds[t]; r < p.bounds[t + 1]; r += rows)
                        for (int i = 0; i < p.pieces; i++, to++) {
                            const int16_t* v[2] = {none.data(), none.data()};
                            for (int j = 0; j < p.piece_rows; j++)
                                if (const int row = r + i * p.piece_rows + j; row < p.bounds[t + 1])
                                    v[j] = level.row(g, s, row) + c0;
                            const int second = p.piece_rows == 2 ? span : 0;
                            for (int c = 0; c < n; c++)
                                to[c * column] = uint8_t(v[0][c] - least + (v[1][c] - least) * second);
                        }
            }
    return true;
}

}  // namespace bitline
