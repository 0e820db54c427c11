// Loops for the processor that there is.
#pragma once

// A function for each set of instructions, of which the processor's best is called.
#ifdef BITLINE_X86
#ifdef __clang__
#define WIDE
#else
#define WIDE ",prefer-vector-width=512"
#endif
#define EACH(result, name, parameters, arguments)                                                                  \
    __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,fma" WIDE))) result name##_avx512 parameters {       \
        return name##_body arguments;                                                                              \
    }                                                                                                              \
    __attribute__((target("avx2,fma"))) result name##_avx2 parameters { return name##_body arguments; }            \
    result name##_plain parameters { return name##_body arguments; }                                               \
    result name parameters {                                                                                       \
        return (machine() == 2 ? name##_avx512 : machine() == 1 ? name##_avx2 : name##_plain)arguments;            \
    }
#else
#define EACH(result, name, parameters, arguments) \
    result name parameters { return name##_body arguments; }
#endif
#define INLINE inline __attribute__((always_inline))

namespace bitline {

#ifdef BITLINE_X86
inline int machine() {
    static const int best = [] {
        if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 0;
        const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
        return wide ? 2 : 1;
    }();
    return best;
}
#endif

}  // namespace bitline
