// Numbers rounded to integers times a scale, gradients past that, and what a surrogate adds, in one pass over memory
// each; see `bitline.mvm.gradient` and `bitline.surrogate.answer`. Numbers are float32 or bf16, by address: their callers
// have seen to types, sizes and order, and an array object for each would take longer than a small layer.
#include <nanobind/nanobind.h>

#include <algorithm>
#include <atomic>
#include <cstring>

#include "programming_ways.hpp"
#include "threads.hpp"

namespace nb = nanobind;

namespace bitline {
namespace {

constexpr int64_t RUN = 1 << 15;  // numbers that a thread takes at once
using Half = int16_t;             // bf16

template <class T>
T* at(uintptr_t address) {
    return reinterpret_cast<T*>(address);
}

// Numbers of which every `inner` neighbours have one scale.
template <class X>
struct Grid {
    const X* x;
    const float* scale;
    int64_t inner;
    float low, high;
};

// Errors of the integers that weights are: mean and spread of each, and a window of normal numbers.
struct Errors {
    const float *mean, *std, *numbers, *factor;
    int64_t window, inner;
    float low, last;
};

INLINE void store(float* to, float v) { *to = v; }
INLINE void store(Half* to, float v) {  // ties to even
    uint32_t bits;
    std::memcpy(&bits, &v, sizeof bits);
    bits += 0x7fff + (bits >> 16 & 1);
    *to = Half(bits >> 16);
}
INLINE float load(const float* from) { return *from; }
INLINE float load(const Half* from) {
    const uint32_t bits = uint32_t(uint16_t(*from)) << 16;
    float v;
    std::memcpy(&v, &bits, sizeof v);
    return v;
}
INLINE uint32_t infinite(float v) {  // or NaN
    uint32_t bits;
    std::memcpy(&bits, &v, sizeof bits);
    return (bits & 0x7f800000) == 0x7f800000;
}

// Calls each(first, last, channel) for what lies between `first` and `last` and has one scale.
template <class Each>
INLINE void by_channel(int64_t inner, int64_t first, int64_t last, Each each) {
    for (int64_t a = first; a < last;) {
        const int64_t channel = a / inner, b = std::min(last, (channel + 1) * inner);
        each(a, b, channel);
        a = b;
    }
}

// Whether some number is NaN or infinite.
template <class X, class T>
INLINE bool value_body(const Grid<X>& g, int64_t first, int64_t last, T* out) {
    uint32_t bad = 0;
    by_channel(g.inner, first, last, [&](int64_t a, int64_t b, int64_t channel) {
        const X* __restrict x = g.x;
        T* __restrict to = out;
        const float scale = g.scale[channel], low = g.low, high = g.high;
        uint32_t some = 0;
        for (int64_t i = a; i < b; i++) {
            const float v = load(x + i);
            some |= infinite(v);
            store(to + i, std::min(std::max(__builtin_rintf(v / scale), low), high) * scale);
        }
        bad |= some;
    });
    return bad;
}
template <class X, class T>
INLINE void pass_body(const Grid<X>& g, int64_t first, int64_t last, const T* grad, X* out) {
    by_channel(g.inner, first, last, [&](int64_t a, int64_t b, int64_t channel) {
        const X* __restrict x = g.x;
        const T* __restrict from = grad;
        X* __restrict to = out;
        const float scale = g.scale[channel], low = g.low, high = g.high;
        for (int64_t i = a; i < b; i++) {
            const float whole = __builtin_rintf(load(x + i) / scale), v = load(from + i);
            store(to + i, (whole >= low) & (whole <= high) ? v : 0.0f);
        }
    });
}
template <class T>
INLINE void erred_body(const Grid<float>& g, const Errors& e, int64_t first, int64_t last, T* out) {
    by_channel(e.inner, first, last, [&](int64_t a, int64_t b, int64_t channel) {
        const float scale = g.scale[a / g.inner], factor = e.factor[channel];
        by_channel(e.window, a, b, [&](int64_t from, int64_t until, int64_t turn) {
            const float *__restrict x = g.x, *__restrict mean = e.mean, *__restrict std = e.std;
            const float* __restrict numbers = e.numbers - turn * e.window;
            T* __restrict to = out;
            for (int64_t i = from; i < until; i++) {
                const float whole = __builtin_rintf(x[i] / scale);
                const int32_t at = int32_t(std::min(std::max(whole - e.low, 0.0f), e.last));
                const float error = std[at] * numbers[i] + mean[at];
                store(to + i, (error + std::min(std::max(whole, g.low), g.high)) * factor);
            }
        });
    });
}
template <class T>
INLINE void add_body(const T* more, int64_t first, int64_t last, T* out) {
    for (int64_t i = first; i < last; i++) store(out + i, load(out + i) + load(more + i));
}

// The types of numbers and results, and of gradients, that there are loops for.
#define LOOPS(name, X, T)                                                                                           \
    INLINE bool name##_value_body(const Grid<X>& g, int64_t first, int64_t last, T* out) {                         \
        return value_body(g, first, last, out);                                                                     \
    }                                                                                                               \
    INLINE void name##_pass_body(const Grid<X>& g, int64_t first, int64_t last, const T* grad, X* out) {           \
        pass_body(g, first, last, grad, out);                                                                       \
    }                                                                                                               \
    EACH(bool, name##_value, (const Grid<X>& g, int64_t first, int64_t last, T* out), (g, first, last, out))        \
    EACH(void, name##_pass, (const Grid<X>& g, int64_t first, int64_t last, const T* grad, X* out),                 \
         (g, first, last, grad, out))                                                                               \
    bool value(const Grid<X>& g, int64_t first, int64_t last, T* out) { return name##_value(g, first, last, out); } \
    void pass(const Grid<X>& g, int64_t first, int64_t last, const T* grad, X* out) {                              \
        name##_pass(g, first, last, grad, out);                                                                     \
    }
LOOPS(floats, float, float)
LOOPS(floats_as_halves, float, Half)
LOOPS(halves, Half, Half)
#undef LOOPS
#define LOOPS(name, T)                                                                                              \
    INLINE void name##_erred_body(const Grid<float>& g, const Errors& e, int64_t first, int64_t last, T* out) {     \
        erred_body(g, e, first, last, out);                                                                         \
    }                                                                                                               \
    INLINE void name##_add_body(const T* more, int64_t first, int64_t last, T* out) {                              \
        add_body(more, first, last, out);                                                                           \
    }                                                                                                               \
    EACH(void, name##_erred, (const Grid<float>& g, const Errors& e, int64_t first, int64_t last, T* out),          \
         (g, e, first, last, out))                                                                                  \
    EACH(void, name##_add, (const T* more, int64_t first, int64_t last, T* out), (more, first, last, out))          \
    void draw(const Grid<float>& g, const Errors& e, int64_t first, int64_t last, T* out) {                        \
        name##_erred(g, e, first, last, out);                                                                       \
    }                                                                                                               \
    void add(const T* more, int64_t first, int64_t last, T* out) { name##_add(more, first, last, out); }
LOOPS(one, float)
LOOPS(two, Half)
#undef LOOPS

template <class Work>
void share(int64_t n, int threads, Work work) {
    nb::gil_scoped_release release;
    Tasks tasks((n + RUN - 1) / RUN, 1);
    on_threads(n < 4 * RUN ? 1 : threads, [&] {
        for (int64_t first, last; tasks.take(first, last);) work(first * RUN, std::min(n, last * RUN));
    });
}

// Numbers as Python names them: where they are, how many, the scales of equal shares of them, and the integers' ends.
struct Asked {
    uintptr_t x;
    int64_t count;
    uintptr_t scale;
    int64_t scales;
    float low, high;
    template <class X>
    Grid<X> grid() const {
        return {at<const X>(x), at<const float>(scale), std::max<int64_t>(1, count / scales), low, high};
    }
};

template <class X, class T>
bool quantized(const Asked& a, uintptr_t out, int threads) {
    std::atomic<bool> bad{false};
    share(a.count, threads, [&, g = a.grid<X>()](int64_t first, int64_t last) {
        if (value(g, first, last, at<T>(out))) bad = true;
    });
    return !bad;
}

template <class X, class T>
void passed(const Asked& a, uintptr_t grad, uintptr_t out, int threads) {
    share(a.count, threads, [&, g = a.grid<X>()](int64_t first, int64_t last) {
        pass(g, first, last, at<const T>(grad), at<X>(out));
    });
}

template <class T>
void erred(const Asked& a, const Errors& e, uintptr_t out, int threads) {
    share(a.count, threads, [&, g = a.grid<float>()](int64_t first, int64_t last) { draw(g, e, first, last, at<T>(out)); });
}

template <class T>
void added(uintptr_t out, uintptr_t more, int64_t count, int threads) {
    share(count, threads, [&](int64_t first, int64_t last) { add(at<const T>(more), first, last, at<T>(out)); });
}

}  // namespace

void define_straight_through(nb::module_& m) {
    // Numbers are bf16 or not, and values and gradients are; bf16 has no values in float32. Whether all are finite.
    m.def("quantized", [](uintptr_t x, bool half, int64_t count, uintptr_t scale, int64_t scales, float low, float high,
                          uintptr_t out, bool out_half, int threads) {
        const Asked a{x, count, scale, scales, low, high};
        return (half ? quantized<Half, Half> : out_half ? quantized<float, Half> : quantized<float, float>)(a, out, threads);
    });
    m.def("passed", [](uintptr_t x, bool half, int64_t count, uintptr_t scale, int64_t scales, float low, float high,
                       uintptr_t grad, bool grad_half, uintptr_t out, int threads) {
        const Asked a{x, count, scale, scales, low, high};
        (half ? passed<Half, Half> : grad_half ? passed<float, Half> : passed<float, float>)(a, grad, out, threads);
    });
    m.def("erred", [](uintptr_t x, int64_t count, uintptr_t scale, int64_t scales, float low, float high, uintptr_t mean,
                      uintptr_t std, int64_t entries, float lowest, uintptr_t numbers, int64_t window, uintptr_t factor,
                      int64_t factors, uintptr_t out, bool half, int threads) {
        const Asked a{x, count, scale, scales, low, high};
        const Errors e{at<const float>(mean), at<const float>(std), at<const float>(numbers), at<const float>(factor), window,
                       std::max<int64_t>(1, count / factors), lowest, float(entries - 1)};
        (half ? erred<Half> : erred<float>)(a, e, out, threads);
    });
    m.def("added", [](uintptr_t out, uintptr_t more, int64_t count, bool half, int threads) {
        (half ? added<Half> : added<float>)(out, more, count, threads);
    });
}

}  // namespace bitline
