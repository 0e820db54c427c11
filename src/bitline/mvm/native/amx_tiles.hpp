// The tile instructions of AMX that are needed here, or plain loops that do what they do.
//
// Written in assembly: compilers' own headers do not say that a load of a tile, or of the configuration, reads memory.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace bitline {
namespace {
namespace tile {

struct alignas(64) Config {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t bytes[16] = {};  // of a row
    uint8_t rows[16] = {};
};
static_assert(sizeof(Config) == 64);

#ifdef BITLINE_EMULATE_AMX

// What the processor faults on ends the process.
inline void demand(bool right) {
    if (!right) std::abort();
}

struct State {
    Config config;
    bool configured = false;
    alignas(64) uint8_t tile[8][16][64];
    int rows(int t) const { return config.rows[t]; }
    int bytes(int t) const { return config.bytes[t]; }
};
thread_local State state;

inline void configure(const Config& c) {
    demand(c.palette == 1 && c.start_row == 0);
    for (uint8_t r : c.reserved) demand(r == 0);
    for (int t = 0; t < 16; t++)
        demand(t < 8 ? c.rows[t] <= 16 && c.bytes[t] <= 64 && !c.rows[t] == !c.bytes[t] : !c.rows[t] && !c.bytes[t]);
    state.config = c;
    state.configured = true;
    std::memset(state.tile, 0, sizeof state.tile);
}
inline void release() { state.configured = false; }

template <int T>
void zero() {
    demand(state.configured && state.rows(T));
    std::memset(state.tile[T], 0, sizeof state.tile[T]);
}
template <int T>
void load(const void* from, long stride) {
    zero<T>();
    for (int r = 0; r < state.rows(T); r++)
        std::memcpy(state.tile[T][r], static_cast<const char*>(from) + r * stride, state.bytes(T));
}
template <int T>
void store(void* to, long stride) {
    demand(state.configured && state.rows(T));
    for (int r = 0; r < state.rows(T); r++)
        std::memcpy(static_cast<char*>(to) + r * stride, state.tile[T][r], state.bytes(T));
}
// C += A x B over bytes of A, signed or not, and unsigned bytes of B.
template <bool SIGNED, int C, int A, int B>
void multiply() {
    static_assert(C != A && C != B && A != B);
    State& s = state;
    demand(s.configured && s.rows(C) && s.rows(A) && s.rows(B));
    demand(s.rows(C) == s.rows(A) && s.bytes(C) == s.bytes(B) && s.bytes(A) == s.rows(B) * 4 && s.bytes(C) % 4 == 0);
    for (int m = 0; m < s.rows(C); m++) {
        uint32_t sum[16];
        std::memcpy(sum, s.tile[C][m], 64);
        for (int k = 0; k < s.rows(B); k++)
            for (int n = 0; n < s.bytes(C) / 4; n++)
                for (int i = 0; i < 4; i++) {
                    const uint8_t a = s.tile[A][m][k * 4 + i];
                    sum[n] += uint32_t((SIGNED ? int8_t(a) : int(a)) * s.tile[B][k][n * 4 + i]);
                }
        std::memset(s.tile[C][m], 0, 64);
        std::memcpy(s.tile[C][m], sum, s.bytes(C));
    }
    for (int m = s.rows(C); m < 16; m++) std::memset(s.tile[C][m], 0, 64);
}

#else

inline void configure(const Config& c) { __asm__ volatile("ldtilecfg %0" ::"m"(c) : "memory"); }
inline void release() { __asm__ volatile("tilerelease" ::: "memory"); }

template <int T>
void zero() {
    __asm__ volatile("tilezero %%tmm%c0" ::"i"(T));
}
template <int T>
void load(const void* from, long stride) {
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(T) : "memory");
}
template <int T>
void store(void* to, long stride) {
    __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(T) : "memory");
}
// C += A x B over bytes of A, signed or not, and unsigned bytes of B.
template <bool SIGNED, int C, int A, int B>
void multiply() {
    if (SIGNED)
        __asm__ volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B));
    else
        __asm__ volatile("tdpbuud %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B));
}

#endif

}  // namespace tile
}  // namespace
}  // namespace bitline
