// AMX: tile products of 16 columns x 64 rows of levels with 64 rows x 16 vectors of digits, codes as in AVX-512.
//
// Estimate of instructions per 1024 products of a digit and a level, at row tiles of 128 and integer levels: 1/16 of a
// tile product, 1/16 of a tile load, 1/32 of a tile store, 1.3 to narrow sums and 4 to 5 to convert them; look-ups take
// about 8 in place of the first four. Tile products take 1 cycle of a unit of their own, beside which the others run: a
// step of tile products is followed by the narrowing of the step before and some codes of the columns before.
#include "amx_tiles.hpp"
#include "avx512.hpp"

namespace bitline {
namespace {

class TileSums {
    static constexpr int HALF = LANES / 2;         // vectors of a step: two tiles
    static constexpr int COLUMNS = 16, PITCH = 64; // of a tile of levels, at most
    static constexpr int RESULT = COLUMNS * 16;    // sums of a tile
    static constexpr size_t KEPT = 1 << 20;        // bytes of expanded digits that are kept for the next columns

    Buffer<uint8_t> digits_, sums_;
    Buffer<int32_t> results_;
    std::vector<char> expanded_;                   // of each row tile
    bool keep_ = false;

   public:
    // Of 64 lanes of 16-bit sums: two tiles are interleaved.
    static constexpr int natural(int i) { return i / HALF * HALF + i % HALF / 2 + i % 2 * 16; }

    // Other inputs are multiplied from here on.
    void start(const Plan& p) {
        expanded_.assign(p.tiles, false);
        keep_ = digit_bytes(p) * p.first_block.back() <= KEPT;
    }

    // Sums of row tile t, columns c0 (a multiple of 16) to c1 and all planes: use(column, plane, first lane, sums), where
    // sums are uint16_t or float, [live digit, and one of no input if not all are live][HALF].
    template <class Use>
    void multiply(const Plan& p, int group, int t, int c0, int c1, const uint8_t* x, const int* live, int count, Use use) {
        switch (p.sums) {
            case Sums::bytes: return run<Sums::bytes, uint16_t>(p, group, t, c0, c1, x, live, count, use);
            case Sums::words: return run<Sums::words, uint16_t>(p, group, t, c0, c1, x, live, count, use);
            default: return run<Sums::ints, float>(p, group, t, c0, c1, x, live, count, use);
        }
    }

   private:
    // A unit of work is two tiles of levels next to each other in memory, two planes or the two bytes of one, and half of
    // the vectors; a step of it is one digit.
    template <Sums KIND, class Sum, class Use>
    void run(const Plan& p, int group, int t, int c0, int c1, const uint8_t* x, const int* live, int count, Use use) {
        const int blocks = p.first_block[t + 1] - p.first_block[t], columns = p.tile_columns, parts = p.tile_parts;
        const size_t tile = size_t(columns) * PITCH, part = tile * blocks;
        const int sixteens = (p.stored + COLUMNS - 1) / COLUMNS, tiles = p.planes * parts;
        const uint8_t* levels = p.tile_levels.get() +
                                (size_t(group) * p.first_block.back() + p.first_block[t]) * sixteens * tiles * tile +
                                size_t(c0 / COLUMNS) * tiles * part;
        const uint8_t* digits = expand(p, t, x, live, count);
        const size_t digit = size_t(blocks) * 2 * p.tile_rows * 16;
        const int planes = (c1 - c0 + COLUMNS - 1) / COLUMNS * p.planes, per_unit = 2 / parts;
        const int units = (planes + per_unit - 1) / per_unit, work = 2 * units, steps = std::max(count, 1);
        const size_t column = size_t(p.digits) * HALF;
        Sum* const all = reinterpret_cast<Sum*>(sums_.get(sizeof(Sum) * 4 * COLUMNS * column));
        int32_t* const results = results_.get(8 * RESULT);
        if (count < p.digits)
            for (int i = 0; i < 4 * COLUMNS; i++) std::fill_n(all + i * column + count * HALF, HALF, Sum(p.base));

        // What a unit of work leaves behind: sums of one or two planes.
        struct Made {
            Sum* sums;
            int planes, from;
        };
        const auto made = [&](int w) {
            const int unit = w % units;
            return Made{all + w % 2 * 2 * COLUMNS * column, std::min(per_unit, planes - unit * per_unit), w / units * HALF};
        };
        Made now{}, before{};
        for (int w = 0; w <= work; w++) {
            before = now;
            if (w < work) now = made(w);
            const uint8_t* first = levels + size_t(w % units) * 2 * part;
            const uint8_t* second = now.planes * parts == 2 ? first + part : nullptr;
            const uint8_t* digit_at = digits + size_t(w / units) * count * digit;
            // Codes of `before`: up to `ready` of its columns, of which `at` of plane `of` is next.
            int plane = w ? (w - 1) % units * per_unit : 0, of = 0, at = 0, used = 0;
            int s = plane % p.planes, c = c0 + plane / p.planes * COLUMNS;
            for (int i = 0; i < steps; i++) {
                if (count && w < work)
                    products(p, first, second, digit_at + i * digit, blocks, results + (w * steps + i) % 2 * 4 * RESULT);
                if (count && (i ? w < work : w > 0)) {
                    const int32_t* from = results + (w * steps + i - 1) % 2 * 4 * RESULT;
                    const Made& m = i ? now : before;
                    Sum* to = m.sums + (i ? i - 1 : steps - 1) * HALF;
                    for (int k = 0; k < m.planes; k++)
                        for (int j = 0; j < columns; j++)
                            narrow<KIND>(p, from + k * 2 * RESULT + j * 16, to + (k * COLUMNS + j) * column);
                }
                if (!w) continue;
                for (const int ready = before.planes * columns * (i + 1) / steps; used < ready; used++) {
                    if (c + at < c1) use(c + at, s, before.from, before.sums + (of * COLUMNS + at) * column);
                    if (++at < columns) continue;
                    at = 0, of++;
                    if (++s == p.planes) s = 0, c += COLUMNS;
                }
            }
        }
    }

    // Sums of two tiles of levels, or one, with two tiles of digits, over the blocks of a row tile.
    static void products(const Plan& p, const uint8_t* first, const uint8_t* second, const uint8_t* digits, int blocks,
                         int32_t* to) {
        if (!p.tile_signed)
            products<false, false>(p, first, second, digits, blocks, to);
        else if (p.tile_parts == 1)
            products<true, true>(p, first, second, digits, blocks, to);
        else
            products<false, true>(p, first, second, digits, blocks, to);
    }
    template <bool FIRST, bool SECOND>
    static void products(const Plan& p, const uint8_t* first, const uint8_t* second, const uint8_t* digits, int blocks,
                         int32_t* to) {
        const size_t tile = size_t(p.tile_columns) * PITCH, digit = size_t(p.tile_rows) * 16;
        tile::zero<0>(), tile::zero<1>(), tile::zero<2>(), tile::zero<3>();
        for (int b = 0; b < blocks; b++) {
            tile::load<4>(first + b * tile, PITCH);
            tile::load<6>(digits + 2 * b * digit, 64);
            tile::load<7>(digits + (2 * b + 1) * digit, 64);
            tile::multiply<FIRST, 0, 4, 6>();
            tile::multiply<FIRST, 1, 4, 7>();
            if (!second) continue;
            tile::load<5>(second + b * tile, PITCH);
            tile::multiply<SECOND, 2, 5, 6>();
            tile::multiply<SECOND, 3, 5, 7>();
        }
        tile::store<0>(to, 64), tile::store<1>(to + RESULT, 64);
        if (second) tile::store<2>(to + 2 * RESULT, 64), tile::store<3>(to + 3 * RESULT, 64);
    }

    // One column's sums with two tiles of digits.
    template <Sums KIND, class Sum>
    static void narrow(const Plan& p, const int32_t* from, Sum* to) {
        __m512i a = _mm512_load_si512(from), b = _mm512_load_si512(from + RESULT);
        if (KIND != Sums::bytes && p.tile_parts == 2) {
            a = _mm512_add_epi32(a, _mm512_slli_epi32(_mm512_load_si512(from + 2 * RESULT), 8));
            b = _mm512_add_epi32(b, _mm512_slli_epi32(_mm512_load_si512(from + 3 * RESULT), 8));
        }
        if constexpr (KIND == Sums::ints) {
            const __m512 unit = _mm512_set1_ps(p.unit);
            _mm512_store_ps(to, _mm512_mul_ps(_mm512_cvtepi32_ps(a), unit));
            _mm512_store_ps(to + 16, _mm512_mul_ps(_mm512_cvtepi32_ps(b), unit));
        } else {
            __m512i both = _mm512_mask_blend_epi16(0xaaaaaaaa, a, _mm512_slli_epi32(b, 16));
            if (KIND == Sums::words) both = _mm512_add_epi16(both, _mm512_set1_epi16(short(p.base)));
            _mm512_store_si512(to, both);
        }
    }

    // Digits -------------------------------------------------------------------------------------------------------

    static size_t digit_bytes(const Plan& p) { return size_t(p.tile_rows) * LANES * p.digits; }  // of a block

    // Live digits of a row tile: [half of the vectors][digit][block][two tiles][row / 4][vector][row % 4].
    const uint8_t* expand(const Plan& p, int t, const uint8_t* x, const int* live, int count) {
        uint8_t* to = digits_.get(digit_bytes(p) * (keep_ ? p.first_block.back() : most_blocks(p)));
        if (keep_) to += digit_bytes(p) * p.first_block[t];
        if (keep_ && expanded_[t]) return to;
        expanded_[t] = true;
        const int blocks = p.first_block[t + 1] - p.first_block[t], quads = p.tile_rows / 4, end = p.bounds[t + 1];
        const size_t digit = size_t(blocks) * 2 * quads * 64, half = digit * count;
        for (int k = 0; k < blocks * quads; k++) {
            __m512i row[4], quad[4];
            const int r0 = p.bounds[t] + k / quads * p.tile_rows + k % quads * 4;
            for (int i = 0; i < 4; i++)
                row[i] = r0 + i < end ? _mm512_load_si512(x + size_t(r0 + i) * LANES) : _mm512_setzero_si512();
            interleave(row, quad);
            for (int i = 0; i < count; i++) {
                const __m128i shift = _mm_cvtsi32_si128(p.digit_shift[live[i]]), left = _mm_cvtsi32_si128(p.tile_shift);
                const __m512i mask = _mm512_set1_epi8(char(p.digit_mask[live[i]]));
                uint8_t* at = to + i * digit + (size_t(k / quads) * 2 * quads + k % quads) * 64;
                for (int q = 0; q < 4; q++) {
                    const __m512i d = _mm512_and_si512(_mm512_srl_epi16(quad[q], shift), mask);
                    _mm512_store_si512(at + q / 2 * half + q % 2 * quads * 64, _mm512_sll_epi16(d, left));
                }
            }
        }
        return to;
    }

    static int most_blocks(const Plan& p) {
        int most = 0;
        for (int t = 0; t < p.tiles; t++) most = std::max(most, p.first_block[t + 1] - p.first_block[t]);
        return most;
    }

    // Four rows of 64 vectors to four times 16 vectors of four rows.
    static void interleave(const __m512i* row, __m512i* to) {
        const __m512i a = _mm512_unpacklo_epi8(row[0], row[1]), b = _mm512_unpackhi_epi8(row[0], row[1]);
        const __m512i c = _mm512_unpacklo_epi8(row[2], row[3]), d = _mm512_unpackhi_epi8(row[2], row[3]);
        const __m512i v0 = _mm512_unpacklo_epi16(a, c), v1 = _mm512_unpackhi_epi16(a, c);
        const __m512i v2 = _mm512_unpacklo_epi16(b, d), v3 = _mm512_unpackhi_epi16(b, d);
        // Quarter j of v_i holds vectors 16 j + 4 i and on.
        const __m512i e = _mm512_shuffle_i32x4(v0, v1, 0x44), f = _mm512_shuffle_i32x4(v0, v1, 0xee);
        const __m512i g = _mm512_shuffle_i32x4(v2, v3, 0x44), h = _mm512_shuffle_i32x4(v2, v3, 0xee);
        to[0] = _mm512_shuffle_i32x4(e, g, 0x88), to[1] = _mm512_shuffle_i32x4(e, g, 0xdd);
        to[2] = _mm512_shuffle_i32x4(f, h, 0x88), to[3] = _mm512_shuffle_i32x4(f, h, 0xdd);
    }
};

struct Amx : Avx512 {
    using Tiles = TileSums;
};

// Results in tiles 0 to 3, levels in 4 and 5, digits in 6 and 7.
struct Configured {
    const bool tiled;
    explicit Configured(const Plan& p) : tiled(p.tiled) {
        if (!tiled) return;
        tile::Config c;
        for (int t = 0; t < 8; t++) {
            c.rows[t] = uint8_t(t < 6 ? p.tile_columns : p.tile_rows / 4);
            c.bytes[t] = uint16_t(t == 4 || t == 5 ? p.tile_rows : 64);
        }
        tile::configure(c);
    }
    ~Configured() {
        if (tiled) tile::release();
    }
};

}  // namespace

#ifdef BITLINE_EMULATE_AMX
#define run_amx run_amx_emulated
#endif

void run_amx(const Plan& p, const View& v, const Output& o, Tasks& tasks, bool shortcuts) {
    const Configured configured(p);
    Engine<Amx>(p, v, o, shortcuts).run(tasks);
}

}  // namespace bitline
