// The product, for any instruction set I. A task is 64 input vectors x one group x up to COLUMN_BLOCK columns.
//
// I has: W (bytes of a vector), lookup (of bytes in a table), table (load one), subsets, words and lookup16 where WORDS,
// mulhi, mul_round (signed, >> 15), positive (signed, else 0), add_sat, sub_sat, min, max, normal (uniform to normal
// numbers), add_pairs (bytes of two vectors, added up and scaled, one half of the lanes).
#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <type_traits>

#include "plan.hpp"

// Keeps a value in its register, where compilers would rather load it again.
#if defined(__x86_64__)
#define HELD(v) __asm__("" : "+v"(v))
#define AHEAD(p) __builtin_prefetch(p)
#else
#define HELD(v)
#define AHEAD(p)
#endif

namespace bitline {
namespace {

template <class T>
struct Buffer {
    std::unique_ptr<T, void (*)(void*)> data{nullptr, std::free};
    size_t size = 0;
    T* get(size_t n) {
        if (n > size) {
            data.reset(static_cast<T*>(std::aligned_alloc(64, (n * sizeof(T) + 127) / 64 * 64)));
            size = n;
        }
        return data.get();
    }
};

template <class V16>
inline V16 look_up_normals(V16 u) {
    const int16_t* table = quantiles().table;
    V16 v;
    for (size_t i = 0; i < sizeof(V16) / 2; i++) v[i] = uint16_t(table[u[i]]);
    return v;
}

template <class V16>
inline uint32_t far_lanes(V16 u) {
    uint32_t lanes = 0;
    for (size_t i = 0; i < sizeof(V16) / 2; i++) lanes |= uint32_t((u[i] & 0x7fff) >= FAR) << i;
    return lanes;
}

// What stands for tile products where an instruction set has none.
struct NoTiles {
    static constexpr int natural(int i) { return i; }
};

template <class I>
class Engine {
    using V8 = typename I::V8;
    using V16 = typename I::V16;
    using V32 = typename I::V32;
    using VF = typename I::VF;
    using Tiles = typename I::Tiles;
    static constexpr int N8 = I::W, N16 = I::W / 2, N32 = I::W / 4;
    static constexpr bool TILED = !std::is_same_v<Tiles, NoTiles>;

    const Plan& plan;
    const View& view;
    const Output& out;
    const bool shortcuts;
    Buffer<uint8_t> x_, index_, bytes_;
    Buffer<uint16_t> index16_, sums16_, acc16_;
    Buffer<uint32_t> acc32_;
    Buffer<float> digits_, sums_;
    std::vector<int> active_;        // lookups that see a digit, all tiles
    std::vector<int> active_first_;  // of each tile
    std::vector<int> live_;          // digits that are not all zero, per tile: (tiles, digits)
    std::vector<int> live_count_;
    std::vector<int> place_;         // of each digit among the live ones of a tile; behind them if it is all zero
    std::vector<uint16_t> keys_, sigma16_;  // of read noise: (tiles, 4, lanes), (tiles, digits, lanes)
    std::vector<int32_t> sigma_;
    int64_t block_ = -1;
    int group_ = -1;
    int lanes_ = 0;
    int32_t x_total_[LANES];
    std::vector<int32_t> x_tile_;    // of each row tile, where columns lack some: (tiles, lanes)
    Tiles tiles_;

   public:
    Engine(const Plan& p, const View& v, const Output& o, bool s) : plan(p), view(v), out(o), shortcuts(s) {}

    void run(Tasks& tasks) {
        for (int64_t first, last; tasks.take(first, last);)
            for (int64_t task = first; task < last; task++) run(task);
    }

   private:
    void run(int64_t task) {
        const int64_t nc = column_blocks(plan);
        const int64_t block = task / (nc * plan.groups);
        const int group = int(task / nc % plan.groups);
        if (block != block_ || group != group_) prepare(block, group);
        const int c0 = int(task % nc) * COLUMN_BLOCK;
        columns(c0, std::min(plan.stored, c0 + COLUMN_BLOCK));
    }

    template <class T>
    static T load(const void* p) {
        T v;
        std::memcpy(&v, p, sizeof(T));
        return v;
    }
    template <class T>
    static void store(void* p, const T& v) {
        std::memcpy(p, &v, sizeof(T));
    }
    static V16 spread(uint32_t pair) { return (V16)(V32{} + pair); }

    // Inputs --------------------------------------------------------------------------------------------------------

    void prepare(int64_t block, int group) {
        block_ = block, group_ = group;
        const int64_t start = block * LANES;
        lanes_ = int(std::min<int64_t>(LANES, int64_t(view.vector.size()) - start));
        uint8_t* x = x_.get(size_t(plan.rows) * LANES);
        const uint8_t* base = view.data + group * view.group;
        // Runs of neighbouring vectors whose elements are neighbours.
        int starts[LANES], lengths[LANES], runs = 0;
        for (int l = 0; l < lanes_; l++) {
            if (l && view.vector[start + l] == view.vector[start + l - 1] + 1)
                lengths[runs - 1]++;
            else
                starts[runs] = l, lengths[runs++] = 1;
        }
        for (int t = 0, r = 0; r < plan.rows; r++) {
            if (r == plan.bounds[t + 1]) t++;
            if (!plan.reads(group, t)) continue;
            uint8_t* to = x + size_t(r) * LANES;
            const uint8_t* from = base + view.row[r];
            for (int i = 0; i < runs; i++) {
                const uint8_t* source = from + view.vector[start + starts[i]];
                if (lengths[i] == 1)
                    to[starts[i]] = *source;
                else
                    std::memcpy(to + starts[i], source, lengths[i]);
            }
            if (lanes_ < LANES) std::memset(to + lanes_, 0, LANES - lanes_);
        }
        std::memset(x_total_, 0, sizeof x_total_);
        const bool negative = plan.digit_weight[plan.digits - 1] < 0;
        if (plan.built.empty())
            add_up(x, 0, plan.rows, negative, x_total_);
        else if (plan.digital_offset) {
            x_tile_.assign(size_t(plan.tiles) * LANES, 0);
            for (int t = 0; t < plan.tiles; t++)
                if (plan.reads(group, t)) add_up(x, plan.bounds[t], plan.bounds[t + 1], negative, x_tile_.data() + size_t(t) * LANES);
        }
        live_.assign(size_t(plan.tiles) * plan.digits, 0);
        live_count_.assign(plan.tiles, 0);
        place_.assign(size_t(plan.tiles) * plan.digits, 0);
        for (int t = 0; t < plan.tiles; t++) {
            if (!plan.reads(group, t)) continue;
            alignas(64) uint8_t any[LANES] = {};
            for (int r = plan.bounds[t]; r < plan.bounds[t + 1]; r++)
                for (int l = 0; l < LANES; l++) any[l] |= x[size_t(r) * LANES + l];
            uint8_t bits = 0;
            for (int l = 0; l < LANES; l++) bits |= any[l];
            for (int p = 0; p < plan.digits; p++)
                if (!shortcuts || (bits >> plan.digit_shift[p] & plan.digit_mask[p])) {
                    place_[size_t(t) * plan.digits + p] = live_count_[t];
                    live_[size_t(t) * plan.digits + live_count_[t]++] = p;
                } else {
                    place_[size_t(t) * plan.digits + p] = -1;
                }
            for (int p = 0; p < plan.digits; p++) {
                int& place = place_[size_t(t) * plan.digits + p];
                if (place < 0) place = live_count_[t];
            }
        }
        if (view.noise.on) prepare_noise(x);
        if constexpr (TILED)
            if (plan.tiled) return tiles_.start(plan);
        switch (plan.sums) {
            case Sums::bytes: return index_bytes(x);
            case Sums::words: return index_words(x);
            default: return;
        }
    }

    // Inputs of some rows.
    static void add_up(const uint8_t* x, int from, int to, bool negative, int32_t* total) {
        for (int r = from; r < to; r++)
            for (int l = 0; l < LANES; l++) {
                const uint8_t v = x[size_t(r) * LANES + l];
                total[l] += negative ? int8_t(v) : v;
            }
    }

    template <class T, class Put>
    void index(const uint8_t* x, int rows_per_lookup, int width, T* to, Put put) {
        active_.clear();
        active_first_.assign(1, 0);
        for (int t = 0; t < plan.tiles; t++) {
            const int live = live_count_[t];
            for (int k = plan.first_lookup[t]; plan.reads(group_, t) && k < plan.first_lookup[t + 1]; k++) {
                T* at = to + size_t(k) * plan.digits * LANES;
                const int r0 = plan.bounds[t] + (k - plan.first_lookup[t]) * rows_per_lookup;
                const int r1 = std::min(plan.bounds[t + 1], r0 + rows_per_lookup);
                uint32_t any = 0;
                for (int i = 0; i < live; i++) {
                    const int p = live_[size_t(t) * plan.digits + i];
                    const int shift = plan.digit_shift[p], mask = plan.digit_mask[p];
                    T* v = at + size_t(i) * LANES;
                    std::memset(v, 0, LANES * sizeof(T));
                    for (int r = r0; r < r1; r++) put(v, x + size_t(r) * LANES, shift, mask, (r - r0) * width);
                    for (int l = 0; l < LANES; l++) any |= v[l];
                }
                if (any || !shortcuts) active_.push_back(k);
            }
            active_first_.push_back(int(active_.size()));
        }
    }

    void index_bytes(const uint8_t* x) {
        const int rows = plan.pieces * plan.piece_rows, width = plan.index_bits / rows;
        uint8_t* to = index_.get(size_t(plan.lookups()) * plan.digits * LANES);
        index(x, rows, width, to, [](uint8_t* v, const uint8_t* row, int shift, int mask, int left) {
            // Shifts of 16-bit lanes stay within bytes once masked.
            for (int l = 0; l < LANES; l += N8) {
                V16 d = (load<V16>(row + l) >> shift) & (uint16_t)(mask | mask << 8);
                store(v + l, (V16)(load<V16>(v + l) | (V16)(d << left)));
            }
        });
    }

    void index_words(const uint8_t* x) {
        uint16_t* to = index16_.get(size_t(plan.lookups()) * plan.digits * LANES);
        index(x, WORD_ROWS, 1, to, [](uint16_t* v, const uint8_t* row, int shift, int mask, int left) {
            for (int l = 0; l < LANES; l++) v[l] |= uint16_t((row[l] >> shift & mask) << left);
        });
        // Two look-ups go together: the first of them, counted within its tile.
        size_t kept = 0;
        for (int t = 0, j = 0; t < plan.tiles; t++) {
            int pair = -1;
            for (; j < active_first_[t + 1]; j++) {
                const int first = (active_[j] - plan.first_lookup[t]) / 2 * 2;
                if (first != pair) active_[kept++] = pair = first;
            }
            active_first_[t + 1] = int(kept);
        }
        active_.resize(kept);
    }

    // Sums ----------------------------------------------------------------------------------------------------------

    // Byte sums of N digits and PLANES planes over some lookups, to to[plane][digit][lane].
    template <int N, int PLANES, int PIECES>
    void look_up(const uint8_t* index, const int* list, int count, const uint8_t* packed, int stride, uint8_t* to,
                 int plane_stride) const {
        const uint8_t* expand = plan.expand.get();
        constexpr int TABLE = I::TABLE;
        for (int half = 0; half < LANES; half += N8) {
            V8 acc[PLANES][N] = {};
            for (int j = 0; j < count; j++) {
                const int k = list[j];
                V8 table[PLANES];
                for (int s = 0; s < PLANES; s++) {
                    const uint8_t* code = packed + size_t(s) * stride + size_t(k) * PIECES;
                    table[s] = I::table(expand + size_t(code[0]) * TABLE);
                    for (int i = 1; i < PIECES; i++)
                        table[s] += I::table(expand + (size_t(i) * plan.codes + code[i]) * TABLE);
                }
                const uint8_t* at = index + size_t(k) * plan.digits * LANES + half;
#pragma GCC unroll 8
                for (int p = 0; p < N; p++) {
                    V8 i = load<V8>(at + p * LANES);
                    HELD(i);
#pragma GCC unroll 2
                    for (int s = 0; s < PLANES; s++) acc[s][p] += I::lookup(table[s], i);
                }
            }
#pragma GCC unroll 2
            for (int s = 0; s < PLANES; s++)
#pragma GCC unroll 8
                for (int p = 0; p < N; p++) store(to + size_t(s) * plane_stride + p * LANES + half, acc[s][p]);
        }
    }

    template <int N, int PLANES>
    void look_up_pieces(const uint8_t* index, const int* list, int count, const uint8_t* packed, int stride,
                        uint8_t* to, int plane_stride) const {
        switch (plan.pieces) {
            case 1: return look_up<N, PLANES, 1>(index, list, count, packed, stride, to, plane_stride);
            case 2: return look_up<N, PLANES, 2>(index, list, count, packed, stride, to, plane_stride);
            case 3: return look_up<N, PLANES, 3>(index, list, count, packed, stride, to, plane_stride);
            default: return look_up<N, PLANES, 6>(index, list, count, packed, stride, to, plane_stride);
        }
    }

    template <int PLANES>
    void look_up_digits(int n, const uint8_t* index, const int* list, int count, const uint8_t* packed, int stride,
                        uint8_t* to, int plane_stride) const {
        while (n > 0) {
            const int now = std::min(n, 8);
            switch (now) {
                case 1: look_up_pieces<1, PLANES>(index, list, count, packed, stride, to, plane_stride); break;
                case 2: look_up_pieces<2, PLANES>(index, list, count, packed, stride, to, plane_stride); break;
                case 3: look_up_pieces<3, PLANES>(index, list, count, packed, stride, to, plane_stride); break;
                case 4: look_up_pieces<4, PLANES>(index, list, count, packed, stride, to, plane_stride); break;
                case 5: look_up_pieces<5, PLANES>(index, list, count, packed, stride, to, plane_stride); break;
                case 6: look_up_pieces<6, PLANES>(index, list, count, packed, stride, to, plane_stride); break;
                case 7: look_up_pieces<7, PLANES>(index, list, count, packed, stride, to, plane_stride); break;
                default: look_up_pieces<8, PLANES>(index, list, count, packed, stride, to, plane_stride); break;
            }
            n -= now, index += size_t(now) * LANES, to += size_t(now) * LANES;
        }
    }

    // 16-bit sums of one column, all planes and live digits of a tile: to[plane][digit][lane].
    // `base` is where byte accumulators of chunks lie: base[chunk][plane][digit][lane].
    int byte_sums(int t, int c, uint8_t* base) const {
        const int live = live_count_[t], first = active_first_[t], count = active_first_[t + 1] - first;
        const int chunks = std::max(1, (count + plan.lookups_per_chunk - 1) / plan.lookups_per_chunk);
        const int stride = plan.lookups() * plan.pieces, plane_stride = plan.digits * LANES;
        const uint8_t* packed = plan.packed.data() + (size_t(group_) * plan.stored + c) * plan.planes * stride;
        for (int chunk = 0; chunk < chunks; chunk++) {
            const int begin = int(int64_t(count) * chunk / chunks), end = int(int64_t(count) * (chunk + 1) / chunks);
            uint8_t* to = base + size_t(chunk) * plan.planes * plane_stride;
            if (live < plan.digits)
                for (int s = 0; s < plan.planes; s++) std::memset(to + s * plane_stride + live * LANES, 0, LANES);
            int s = 0;
            for (; s + I::PLANES <= plan.planes; s += I::PLANES)
                look_up_digits<I::PLANES>(live, index_.data.get(), active_.data() + first + begin, end - begin,
                                          packed + size_t(s) * stride, stride, to + size_t(s) * plane_stride,
                                          plane_stride);
            for (; s < plan.planes; s++)
                look_up_digits<1>(live, index_.data.get(), active_.data() + first + begin, end - begin,
                                  packed + size_t(s) * stride, stride, to + size_t(s) * plane_stride, plane_stride);
        }
        return chunks;
    }

    // Codes ---------------------------------------------------------------------------------------------------------

    template <Rule KIND>
    V16 code(V16 sum, const FixedRule& r) const {
        if constexpr (KIND == Rule::words || KIND == Rule::fine_words) {
            V16 v = I::sub_sat(I::add_sat(sum, spread(r.add)), spread(r.sub));
            const V16 k = I::mulhi(v, spread(r.factor)) >> (uint16_t)r.shift;
            V16 most = k & 1;
            if (KIND == Rule::fine_words) v <<= (uint16_t)r.left, most += spread(r.rest);
            return I::min(I::less_one(k, v - (V16)(k * spread(r.lsb)), most), spread(r.high));
        }
        const V16 v = sum + spread(r.add);
        V16 k = I::mulhi(v, spread(r.factor)) >> (uint16_t)r.shift;
        if (KIND == Rule::ties) k -= (V16)((V16)(k * spread(r.lsb)) == v) & k & 1;
        if (KIND == Rule::free) return k;
        if (KIND == Rule::floor || KIND == Rule::ties) k = I::max(k, spread(r.low));
        return I::min(k, spread(r.high));
    }

    template <class Sum>
    void convert(int t, int c, int plane, Sum sum, uint32_t* acc32, uint16_t* acc16, int from = 0,
                 int to = LANES) const {
        switch (plan.rule) {
            case Rule::free: return convert_<Rule::free>(t, c, plane, sum, acc32, acc16, from, to);
            case Rule::plain: return convert_<Rule::plain>(t, c, plane, sum, acc32, acc16, from, to);
            case Rule::floor: return convert_<Rule::floor>(t, c, plane, sum, acc32, acc16, from, to);
            case Rule::ties: return convert_<Rule::ties>(t, c, plane, sum, acc32, acc16, from, to);
            case Rule::words: return convert_<Rule::words>(t, c, plane, sum, acc32, acc16, from, to);
            case Rule::fine_words: return convert_<Rule::fine_words>(t, c, plane, sum, acc32, acc16, from, to);
        }
    }

    // Sum: (place among the live digits, or behind them where it is all zero; first lane) -> V16 shifted left by shift_in.
    template <Rule KIND, class Sum>
    void convert_(int t, int c, int plane, Sum sum, uint32_t* acc32, uint16_t* acc16, int from, int to) const {
        const int* place = place_.data() + size_t(t) * plan.digits;
        const FixedRule* rules = plan.fixed.data() + plan.range(group_, 0, plane, c);
        const int digits = plan.digits, step = plan.stride[1];
        const bool negative = plan.digit_weight[digits - 1] < 0;
        const FixedRule rule = rules[0];
        if (!plan.horner) {
            for (int p = 0; p < digits; p++) {
                const FixedRule own = rules[p * step];
                uint16_t* at = acc16 + p * LANES;
                const auto add = [&](int h) {
                    store(at + h, (V16)(load<V16>(at + h) + code<KIND>(sum(place[p], h), own)));
                };
                if (from == 0 && to == LANES)
#pragma GCC unroll 2
                    for (int h = 0; h < LANES; h += N16) add(h);
                else
                    for (int h = from; h < to; h += N16) add(h);
            }
            return;
        }
        for (int h = from; h < to; h += N16) {
            V16 total = code<KIND>(sum(place[digits - 1], h), rule);
            if (negative) total = -total;
            if (digits == 8 && plan.doubling) {
#pragma GCC unroll 7
                for (int p = 6; p >= 0; p--) total = (V16)(total + total) + code<KIND>(sum(place[p], h), rule);
            } else {
                for (int p = digits - 2; p >= 0; p--)
                    total = (V16)(total << (uint16_t)plan.horner_shift[p]) + code<KIND>(sum(place[p], h), rule);
            }
            alignas(64) uint16_t wide[N16];
            store(wide, total);
            if (negative)
                for (int l = 0; l < N16; l++) acc32[h + l] += uint32_t(int32_t(int16_t(wide[l])));
            else
                for (int l = 0; l < N16; l++) acc32[h + l] += wide[l];
        }
    }

    void convert_by_table(int t, int c, int plane, const int32_t* sums, uint32_t* acc, int64_t& clipped, int from = 0,
                          int to = LANES) const {
        for (int p = 0; p < plan.digits; p++) {
            const int range = plan.range(group_, p, plane, c);
            const uint16_t* table = plan.tables[range].data() - plan.least;
            const uint8_t* beyond = plan.beyond[range].data() - plan.least;
            for (int l = from; l < to; l++) acc[p * LANES + l] += table[sums[p * LANES + l]];
            if (out.clipped)
                for (int l = from; l < std::min(to, lanes_); l++) clipped += beyond[sums[p * LANES + l]];
        }
    }

    // One block of columns ------------------------------------------------------------------------------------------

    void columns(int c0, int c1) {
        const int kinds = plan.planes * plan.digits, n = c1 - c0;
        const bool tables = !plan.tables.empty() || plan.sums == Sums::floats || plan.sums == Sums::ints || plan.parts == 2;
        // Accumulated codes: u16 per digit, or u32 per digit where codes come from tables or floats, or u32 per plane.
        const bool wide = tables;
        const size_t per_column = size_t(wide || !plan.horner ? kinds : plan.planes) * LANES;
        uint32_t* acc32 = nullptr;
        uint16_t* acc16 = nullptr;
        if (wide || plan.horner)
            std::memset(acc32 = acc32_.get(per_column * n), 0, per_column * n * 4);
        else
            std::memset(acc16 = acc16_.get(per_column * n), 0, per_column * n * 2);
        int64_t clipped = 0;
        if (plan.sums == Sums::floats)
            float_columns(c0, c1, acc32, clipped);
        else
            for (int t = 0; t < plan.tiles; t++) {
                if constexpr (TILED)
                    if (plan.tiled) {
                        each_run(t, c0, c1, [&](int begin, int end) {
                            tile_columns(t, c0, begin, end, acc32, acc16, per_column, clipped);
                        });
                        continue;
                    }
                for (int c = c0; c < c1; c++) {
                    if (!plan.there(group_, t, c)) continue;
                    uint32_t* a32 = acc32 ? acc32 + per_column * (c - c0) : nullptr;
                    uint16_t* a16 = acc16 ? acc16 + per_column * (c - c0) : nullptr;
                    if (plan.sums == Sums::words)
                        word_column(t, c, a32, a16, clipped);
                    else
                        byte_column(t, c, a32, a16, clipped);
                }
            }
        int32_t read[LANES];
        for (int c = c0; c < c1; c++) {
            const int32_t* inputs = x_total_;
            if (!plan.built.empty() && plan.digital_offset) {
                if (c == c0 || !alike(c - 1, c)) add_tiles(c, read);
                inputs = read;
            }
            const size_t at = per_column * (c - c0);
            double y[LANES];
            if (wide)
                total(c, acc32 + at, false, y);
            else if (plan.horner)
                total(c, acc32 + at, true, y);
            else
                total(c, acc16 + at, false, y);
            if ((plan.sums == Sums::bytes || plan.tiled) && !wide) {
                double ordered[LANES];
                for (int l = 0; l < LANES; l++) ordered[natural(l)] = y[l];
                put(c, ordered, inputs);
            } else {
                put(c, y, inputs);
            }
        }
        if (out.clipped) __atomic_fetch_add(out.clipped, clipped, __ATOMIC_RELAXED);
    }

    // Whether two columns have the same row tiles.
    bool alike(int a, int b) const {
        for (int t = 0; t < plan.tiles; t++)
            if (plan.there(group_, t, a) != plan.there(group_, t, b)) return false;
        return true;
    }

    // Inputs that a column reads.
    void add_tiles(int c, int32_t* total) const {
        std::memset(total, 0, LANES * sizeof *total);
        for (int t = 0; t < plan.tiles; t++)
            if (plan.there(group_, t, c))
                for (int l = 0; l < LANES; l++) total[l] += x_tile_[size_t(t) * LANES + l];
    }

    // Runs of sixteen columns each of which a row tile has any: run(first column, last column).
    template <class Run>
    void each_run(int t, int c0, int c1, Run run) const {
        if (plan.built.empty()) return run(c0, c1);
        for (int c = c0; c < c1;) {
            int end = c;
            while (end < c1 && plan.any(group_, t, end, std::min(end + 16, c1))) end += 16;
            if (end > c) run(c, std::min(end, c1));
            c = end + 16;
        }
    }

    // Tile products give the sums of half of the lanes of a column and plane at a time: sums[place][lane].
    void tile_columns(int t, int c0, int begin, int end, uint32_t* acc32, uint16_t* acc16, size_t per_column,
                      int64_t& clipped) {
        constexpr int HALF = LANES / 2;
        const int live = live_count_[t];
        const int* digits = live_.data() + size_t(t) * plan.digits;
        const int* place = place_.data() + size_t(t) * plan.digits;
        tiles_.multiply(plan, group_, t, begin, end, x_.data.get(), digits, live, [&](int c, int s, int from, const auto* sums) {
            if (!plan.there(group_, t, c)) return;
            const size_t at = per_column * (c - c0);
            using Sum = std::decay_t<decltype(*sums)>;
            if constexpr (std::is_same_v<Sum, float>) {
                for (int p = 0; p < plan.digits; p++)
                    round_codes<HALF>(sums + place[p] * HALF, plan.range(group_, p, s, c),
                                      acc32 + at + (size_t(s) * plan.digits + p) * LANES + from, clipped, from);
            } else if (!plan.tables.empty()) {
                alignas(64) int32_t natural_sums[MOST_DIGITS * LANES];
                for (int p = 0; p < plan.digits; p++)
                    for (int l = 0; l < HALF; l++) {
                        const Sum sum = sums[place[p] * HALF + l];
                        natural_sums[p * LANES + natural(from + l)] = plan.tile_signed ? int16_t(sum) : sum;
                    }
                convert_by_table(t, c, s, natural_sums, acc32 + at + size_t(s) * plan.digits * LANES, clipped, from,
                                 from + HALF);
            } else {
                convert(t, c, s, [&](int p, int h) { return load<V16>(sums + p * HALF + h - from); },
                        acc32 ? acc32 + at + size_t(s) * LANES : nullptr,
                        acc16 ? acc16 + at + size_t(s) * plan.digits * LANES : nullptr, from, from + HALF);
            }
        });
    }

    void byte_column(int t, int c, uint32_t* acc32, uint16_t* acc16, int64_t& clipped) {
        const int plane_stride = plan.digits * LANES;
        uint8_t* base = bytes_.get(size_t(MOST_CHUNKS) * plan.planes * plane_stride);
        const int chunks = byte_sums(t, c, base);
        const size_t next = size_t(plan.planes) * plane_stride;
        for (int s = 0; s < plan.planes; s++) {
            const uint8_t* from = base + size_t(s) * plane_stride;
            if (!plan.tables.empty()) {
                alignas(64) int32_t sums[MOST_DIGITS * LANES] = {};
                for (int i = 0; i < live_count_[t]; i++) {
                    int32_t* to = sums + live_[size_t(t) * plan.digits + i] * LANES;
                    for (int k = 0; k < chunks; k++) {
                        const uint8_t* at = from + k * next + i * LANES;
                        for (int l = 0; l < LANES; l++) to[l] += plan.signed_bytes ? int8_t(at[l]) : at[l];
                    }
                }
                convert_by_table(t, c, s, sums, acc32 + size_t(s) * plane_stride, clipped);
                continue;
            }
            uint32_t* a32 = acc32 ? acc32 + size_t(s) * LANES : nullptr;
            uint16_t* a16 = acc16 ? acc16 + size_t(s) * plane_stride : nullptr;
            if (plan.signed_bytes)
                convert_bytes<true>(t, c, s, from, next, chunks, a32, a16);
            else
                convert_bytes<false>(t, c, s, from, next, chunks, a32, a16);
        }
    }

    // Byte accumulators are added up in pairs, in the order of lanes that `natural` undoes.
    template <bool SIGNED>
    void convert_bytes(int t, int c, int plane, const uint8_t* from, size_t next, int chunks, uint32_t* acc32,
                       uint16_t* acc16) const {
        const V8 scale = V8{} + (uint8_t)(1 << plan.shift_in);
        const auto pair = [&](int place, int h) {
            const uint8_t* at = from + place * LANES + h / N8 * N8;
            return I::template add_pairs<SIGNED>(load<V8>(at), load<V8>(at + next), scale, h % N8 != 0);
        };
        if (chunks == 2) {
            convert(t, c, plane, [&](int place, int h) { return pair(place, h); }, acc32, acc16);
            return;
        }
        convert(t, c, plane, [&](int place, int h) {
            V16 a{};
            const uint8_t* at = from + place * LANES + h / N8 * N8;
            for (int k = 0; k < chunks; k += 2, at += 2 * next) {
                const V8 second = k + 1 < chunks ? load<V8>(at + next) : V8{};
                a += I::template add_pairs<SIGNED>(load<V8>(at), second, scale, h % N8 != 0);
            }
            return a;
        }, acc32, acc16);
    }

    // Vector that lane i of the accumulators belongs to.
    static int natural(int i) {
        if constexpr (TILED) return Tiles::natural(i);
        const int h = i / N16 * N16, k = i % N16;
        return h / N8 * N8 + k / 8 * 16 + (h % N8 ? 8 : 0) + k % 8;
    }

    // Read noise ----------------------------------------------------------------------------------------------------

    void prepare_noise(const uint8_t* x) {
        keys_.resize(size_t(plan.tiles) * 4 * LANES);
        sigma_.resize(size_t(plan.tiles) * plan.digits * LANES);
        sigma16_.resize(sigma_.size());
        for (int t = 0; t < plan.tiles; t++) {
            if (!plan.reads(group_, t)) continue;
            for (int l = 0; l < lanes_; l++) {
                const uint64_t k = noise_key(view.noise, block_ * LANES + l, t);
                for (int i = 0; i < 4; i++) keys_[(size_t(t) * 4 + i) * LANES + l] = uint16_t(k >> 16 * i);
            }
            for (int p = 0; p < plan.digits; p++) {
                int32_t power[LANES] = {};
                for (int r = plan.bounds[t]; r < plan.bounds[t + 1]; r++)
                    for (int l = 0; l < LANES; l++) {
                        const int d = x[size_t(r) * LANES + l] >> plan.digit_shift[p] & plan.digit_mask[p];
                        power[l] += d * d;
                    }
                for (int l = 0; l < LANES; l++) {
                    const size_t at = (size_t(t) * plan.digits + p) * LANES + l;
                    // A noise of z / NOISE_SIGMA is (z * sigma + 2^14) >> 15 units of RESOLUTION.
                    sigma_[at] = int32_t(noise_steps(power[l] * view.noise.variance));
                    sigma16_[at] = uint16_t(std::min(32767, sigma_[at]));
                }
            }
        }
    }

    // Normal numbers of digits 2 * pair and 2 * pair + 1 for N16 lanes.
    void draw(int t, int c, int plane, int pair, int h, V16& even, V16& odd) const {
        const int pairs = (plan.digits + 1) / 2;
        const uint32_t n = ((uint32_t(group_) * plan.stored + c) * plan.planes + plane) * pairs + pair;
        const uint16_t* k = keys_.data() + size_t(t) * 4 * LANES + h;
        V16 left = load<V16>(k) ^ (uint16_t)n, right = load<V16>(k + LANES) ^ (uint16_t)(n >> 16);
        const V16 round_key[2] = {load<V16>(k + 2 * LANES), load<V16>(k + 3 * LANES)};
        const V16 multiplier = V16{} + NOISE_MULTIPLIER;
#pragma GCC unroll 7
        for (int i = 0; i < NOISE_ROUNDS; i++) {
            const V16 next = I::mulhi(left, multiplier) ^ (V16)(round_key[i % 2] + (uint16_t)(NOISE_WEYL * i)) ^ right;
            right = left * multiplier;
            left = next;
        }
        even = I::normal(left), odd = I::normal(right);
        const uint32_t first = I::far(left), second = I::far(right);
        if (first | second) far_out(n, k, first, left, 2, even), far_out(n, k, second, right, 3, odd);
    }

    // Those lanes of them that lie in a tail.
    static void far_out(uint32_t n, const uint16_t* keys, uint32_t lanes, V16 u, uint32_t half, V16& z) {
        for (; lanes; lanes &= lanes - 1) {
            const int l = __builtin_ctz(lanes);
            const uint16_t key[4] = {keys[l], keys[LANES + l], keys[2 * LANES + l], keys[3 * LANES + l]};
            z[l] = uint16_t(far_normal(n + (half << 30), key, u[l]));
        }
    }

    // Add noise to the 16-bit sums of all digits; they saturate.
    void disturb(int t, int c, int plane, uint16_t* sums) const {
        const int* place = place_.data() + size_t(t) * plan.digits;
        for (int pair = 0; 2 * pair < plan.digits; pair++)
            for (int h = 0; h < LANES; h += N16) {
                V16 z[2];
                draw(t, c, plane, pair, h, z[0], z[1]);
                for (int i = 0; i < 2 && 2 * pair + i < plan.digits; i++) {
                    const int p = 2 * pair + i;
                    if (place[p] >= live_count_[t]) continue;
                    const V16 noise = I::mul_round(z[i], load<V16>(sigma16_.data() + (size_t(t) * plan.digits + p) * LANES + h));
                    uint16_t* at = sums + place[p] * LANES + h;
                    const V16 up = I::positive(noise), down = I::positive((V16)(-noise));
                    store(at, I::sub_sat(I::add_sat(load<V16>(at), up), down));
                }
            }
    }

    // Add noise to the sums of one digit.
    void disturb(int t, int c, int plane, int p, float* sums) const {
        const int32_t* sigma = sigma_.data() + (size_t(t) * plan.digits + p) * LANES;
        for (int h = 0; h < LANES; h += N16) {
            V16 z[2];
            draw(t, c, plane, p / 2, h, z[0], z[1]);
            alignas(64) int16_t of[N16];
            store(of, z[p % 2]);
            for (int l = 0; l < N16; l++)
                sums[h + l] += float((of[l] * sigma[h + l] + (1 << 14)) >> 15) * float(RESOLUTION);
        }
    }

    // Real levels in 16-bit words -----------------------------------------------------------------------------------

    // Sums of N digits over a tile of some look-ups, of which `list` names the first of every two: to[digit][lane].
    template <int N>
    void look_up_words(const uint16_t* index, int lookups, const int* list, int count, const uint16_t* levels,
                       uint16_t* to) const {
        if constexpr (I::WORDS) {
            constexpr int VECTORS = LANES / N16;
            V16 acc[N][VECTORS];  // stays in registers if every loop over it is unrolled
#pragma GCC unroll 8
            for (int p = 0; p < N; p++)
#pragma GCC unroll 2
                for (int v = 0; v < VECTORS; v++) acc[p][v] = V16{} + plan.base;
            // Tables are made one look-up ahead, or look-ups would wait for them.
            const size_t step = size_t(plan.digits) * LANES;
            V16 subsets = I::subsets(levels + size_t(count ? list[0] : 0) * WORD_ROWS);
            auto table = I::words(subsets, 0);
            for (int j = 0; j < count; j++) {
                const int k = list[j], n = std::min(2, lookups - k);
                AHEAD(levels + size_t(k) * WORD_ROWS + 256);
                const V16 next = I::subsets(levels + size_t(list[std::min(j + 1, count - 1)]) * WORD_ROWS);
                const uint16_t* at = index + k * step;
#pragma GCC unroll 1
                for (int i = 1; i <= n; i++, at += step) {
                    if (i == n) subsets = next;
                    const auto ahead = I::words(subsets, i == n ? 0 : i);
#pragma GCC unroll 8
                    for (int p = 0; p < N; p++)
#pragma GCC unroll 2
                        for (int v = 0; v < VECTORS; v++)
                            acc[p][v] += I::lookup16(table, load<V16>(at + p * LANES + v * N16));
                    table = ahead;
                }
            }
#pragma GCC unroll 8
            for (int p = 0; p < N; p++)
#pragma GCC unroll 2
                for (int v = 0; v < VECTORS; v++) store(to + p * LANES + v * N16, acc[p][v]);
        }
    }

    void word_digits(int n, const uint16_t* index, int lookups, const int* list, int count, const uint16_t* levels,
                     uint16_t* to) const {
        while (n > 0) {
            const int now = std::min(n, 8);
            switch (now) {
                case 1: look_up_words<1>(index, lookups, list, count, levels, to); break;
                case 2: look_up_words<2>(index, lookups, list, count, levels, to); break;
                case 3: look_up_words<3>(index, lookups, list, count, levels, to); break;
                case 4: look_up_words<4>(index, lookups, list, count, levels, to); break;
                case 5: look_up_words<5>(index, lookups, list, count, levels, to); break;
                case 6: look_up_words<6>(index, lookups, list, count, levels, to); break;
                case 7: look_up_words<7>(index, lookups, list, count, levels, to); break;
                default: look_up_words<8>(index, lookups, list, count, levels, to); break;
            }
            n -= now, index += size_t(now) * LANES, to += size_t(now) * LANES;
        }
    }

    void word_column(int t, int c, uint32_t* acc32, uint16_t* acc16, int64_t& clipped) {
        const int live = live_count_[t], first = active_first_[t], count = active_first_[t + 1] - first;
        const size_t part = plan.part_words(t);
        const uint16_t* levels = plan.words.data() + plan.word(group_, t, c, 0);
        const int start = plan.first_lookup[t], lookups = plan.first_lookup[t + 1] - start;
        const int* list = active_.data() + first;
        const uint16_t* index = index16_.data.get() + size_t(start) * plan.digits * LANES;
        uint16_t* sums = sums16_.get(size_t(2) * plan.digits * LANES);
        for (int s = 0; s < plan.planes; s++, levels += plan.parts * part) {
            if (live < plan.digits) std::fill(sums + live * LANES, sums + (live + 1) * LANES, plan.base);
            if (plan.parts == 1) {
                word_digits(live, index, lookups, list, count, levels, sums);
                if (view.noise.on) disturb(t, c, s, sums);
                uint32_t* a32 = acc32 ? acc32 + size_t(s) * LANES : nullptr;
                uint16_t* a16 = acc16 ? acc16 + size_t(s) * plan.digits * LANES : nullptr;
                convert(t, c, s, [&](int place, int h) { return load<V16>(sums + place * LANES + h); }, a32, a16);
                continue;
            }
            uint16_t* high = sums + size_t(plan.digits) * LANES;
            word_digits(live, index, lookups, list, count, levels, sums);
            word_digits(live, index, lookups, list, count, levels + part, high);
            const int* place = place_.data() + size_t(t) * plan.digits;
            for (int p = 0; p < plan.digits; p++) {
                alignas(64) float a[LANES] = {};
                if (place[p] < live) {
                    const uint16_t *lo = sums + place[p] * LANES, *hi = high + place[p] * LANES;
                    for (int l = 0; l < LANES; l++)
                        a[l] = float((int32_t(int16_t(hi[l])) << plan.part_shift) + lo[l]) * plan.unit;
                }
                if (view.noise.on) disturb(t, c, s, p, a);
                round_codes(a, plan.range(group_, p, s, c), acc32 + (size_t(s) * plan.digits + p) * LANES, clipped);
            }
        }
    }

    // Sums in float32 -----------------------------------------------------------------------------------------------

    template <int N = LANES>
    void round_codes(const float* a, int range, uint32_t* acc, int64_t& clipped, int from = 0) const {
        const FloatRule& rule = plan.real[range];
        const int low = plan.low, high = plan.high, bias = plan.bias[range];
        alignas(64) int32_t code[N];
        if (plan.divide)
            for (int l = 0; l < N; l++) code[l] = int32_t(std::nearbyint((a[l] - rule.exact_offset) / rule.lsb));
        else
            for (int l = 0; l < N; l++)
                code[l] = int32_t(std::nearbyintf((a[l] - rule.offset) * rule.factor + plan.zero - plan.zero));
        if (plan.limited) {
            if (out.clipped)
                for (int l = 0; l < std::min(N, lanes_ - from); l++) clipped += code[l] < low || code[l] > high;
            for (int l = 0; l < N; l++) {  // by value, or it stays scalar
                const int32_t least = code[l] < low ? low : code[l];
                code[l] = least > high ? high : least;
            }
        }
        for (int l = 0; l < N; l++) acc[l] += uint32_t(code[l] + bias);
    }

    void float_columns(int c0, int c1, uint32_t* acc, int64_t& clipped) {
        constexpr int COLS = 4, VECTORS = I::FLOATS, STEP = VECTORS * N32;
        const int plane_stride = plan.digits * LANES, quads = (plan.stored + 3) / 4;
        const uint8_t* x = x_.data.get();
        float* sums = sums_.get(COLS * LANES);
        for (int t = 0; t < plan.tiles; t++) {
            const int r0 = plan.bounds[t], rows = plan.bounds[t + 1] - r0;
            if (!plan.any(group_, t, c0, c1)) continue;
            float* digits = digits_.get(size_t(rows) * LANES);
            for (int p = 0; p < plan.digits; p++) {
                const int shift = plan.digit_shift[p], mask = plan.digit_mask[p];
                for (int i = 0; i < rows * LANES; i++)
                    digits[i] = float(int32_t(x[size_t(r0) * LANES + i] >> shift & mask));
                for (int c = c0; c < c1; c += COLS) {
                    if (!plan.any(group_, t, c, std::min(c + COLS, c1))) continue;
                    for (int s = 0; s < plan.planes; s++) {
                        const float* w = plan.levels.data() +
                                         (((size_t(group_) * plan.planes + s) * quads + c / 4) * plan.rows + r0) * COLS;
                        for (int h = 0; h < LANES; h += STEP) {
                            VF a[COLS][VECTORS] = {};
                            for (int r = 0; r < rows; r++)
                                for (int v = 0; v < VECTORS; v++) {
                                    const VF d = load<VF>(digits + size_t(r) * LANES + h + v * N32);
#pragma GCC unroll 4
                                    for (int i = 0; i < COLS; i++) a[i][v] += d * w[size_t(r) * COLS + i];
                                }
                            for (int i = 0; i < COLS; i++)
                                for (int v = 0; v < VECTORS; v++) store(sums + i * LANES + h + v * N32, a[i][v]);
                        }
                        for (int i = 0; i < COLS && c + i < c1; i++) {
                            if (!plan.there(group_, t, c + i)) continue;
                            if (view.noise.on) disturb(t, c + i, s, p, sums + i * LANES);
                            round_codes(sums + i * LANES, plan.range(group_, p, s, c + i),
                                        acc + size_t(c + i - c0) * plan.planes * plane_stride +
                                            size_t(s) * plane_stride + p * LANES,
                                        clipped);
                        }
                    }
                }
            }
        }
    }

    // Results -------------------------------------------------------------------------------------------------------

    template <class T>
    void total(int c, const T* acc, bool digits_done, double* y) const {
        double constant = 0;
        int tiles = 0;
        for (int t = 0; t < plan.tiles; t++) tiles += plan.there(group_, t, c);
        std::fill(y, y + LANES, 0.0);
        for (int s = 0; s < plan.planes; s++)
            for (int p = 0; p < plan.digits; p++) {
                const int range = plan.range(group_, p, s, c);
                const double weight = plan.digit_weight[p] * plan.plane_weight[s];
                constant += weight * (plan.offset[range] - plan.lsb[range] * plan.bias[range]) * tiles;
                if (digits_done && p) continue;
                const double factor = plan.lsb[range] * (digits_done ? plan.plane_weight[s] : weight);
                const T* at = acc + (digits_done ? size_t(s) : size_t(s) * plan.digits + p) * LANES;
                for (int l = 0; l < LANES; l++)
                    y[l] += factor * double(sizeof(T) == 4 ? int32_t(at[l]) : int32_t(uint16_t(at[l])));
            }
        for (int l = 0; l < LANES; l++) y[l] += constant;
    }

    void put(int c, double* y, const int32_t* inputs) const {
        for (int l = 0; l < LANES; l++) y[l] -= double(plan.digital_offset) * inputs[l];
        const int64_t start = block_ * LANES, channel = int64_t(group_) * plan.stored + c;
        if (out.exact) {
            for (int l = 0; l < lanes_; l++) out.exact[(start + l) * plan.groups * plan.stored + channel] = y[l];
            return;
        }
        const double factor = out.factor[channel];
        float* to = out.real + channel * out.channel_stride;
        for (int l = 0; l < lanes_; l++) {
            float v = float(y[l] * factor);
            if (out.bias) v += out.bias[channel];
            to[out.offset[start + l]] = v;
        }
    }
};

}  // namespace
}  // namespace bitline
