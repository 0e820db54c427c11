// Numbers rounded to integers times a scale, and gradients past that, in one pass over memory each; see
// `bitline.mvm.gradient`.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "programming_ways.hpp"
#include "threads.hpp"

namespace nb = nanobind;

namespace bitline {
namespace {

template <class T>
using Array = nb::ndarray<T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

constexpr int64_t RUN = 1 << 15;  // numbers that a thread takes at once

// Numbers of which every `inner` neighbours have one scale.
struct Grid {
    const float *x, *scale;
    int64_t inner;
    float low, high;
};

INLINE void store(float* to, float v) { *to = v; }
INLINE void store(int16_t* to, float v) {  // bf16, ties to even
    uint32_t bits;
    std::memcpy(&bits, &v, sizeof bits);
    bits += 0x7fff + (bits >> 16 & 1);
    *to = int16_t(bits >> 16);
}
INLINE float load(const float* from) { return *from; }
INLINE float load(const int16_t* from) {
    const uint32_t bits = uint32_t(uint16_t(*from)) << 16;
    float v;
    std::memcpy(&v, &bits, sizeof v);
    return v;
}

// Calls each(first, last, scale) for what lies between `first` and `last` and has one scale.
template <class Each>
INLINE void by_scale(const Grid& g, int64_t first, int64_t last, Each each) {
    for (int64_t a = first; a < last;) {
        const int64_t channel = a / g.inner, b = std::min(last, (channel + 1) * g.inner);
        each(a, b, g.scale[channel]);
        a = b;
    }
}

template <class T>
INLINE void value_body(const Grid& g, int64_t first, int64_t last, T* out) {
    by_scale(g, first, last, [&](int64_t a, int64_t b, float scale) {
        const float* __restrict x = g.x;
        T* __restrict to = out;
        for (int64_t i = a; i < b; i++) {
            const float whole = __builtin_rintf(x[i] / scale);
            store(to + i, std::min(std::max(whole, g.low), g.high) * scale);
        }
    });
}
template <class T>
INLINE void pass_body(const Grid& g, int64_t first, int64_t last, const T* grad, float* out) {
    by_scale(g, first, last, [&](int64_t a, int64_t b, float scale) {
        const float* __restrict x = g.x;
        const T* __restrict from = grad;
        float* __restrict to = out;
        for (int64_t i = a; i < b; i++) {
            const float whole = __builtin_rintf(x[i] / scale), v = load(from + i);
            to[i] = (whole >= g.low) & (whole <= g.high) ? v : 0.0f;
        }
    });
}
INLINE void floats_body(const Grid& g, int64_t first, int64_t last, float* out) { value_body(g, first, last, out); }
INLINE void halves_body(const Grid& g, int64_t first, int64_t last, int16_t* out) { value_body(g, first, last, out); }
INLINE void pass_floats_body(const Grid& g, int64_t first, int64_t last, const float* grad, float* out) {
    pass_body(g, first, last, grad, out);
}
INLINE void pass_halves_body(const Grid& g, int64_t first, int64_t last, const int16_t* grad, float* out) {
    pass_body(g, first, last, grad, out);
}
EACH(void, floats, (const Grid& g, int64_t first, int64_t last, float* out), (g, first, last, out))
EACH(void, halves, (const Grid& g, int64_t first, int64_t last, int16_t* out), (g, first, last, out))
EACH(void, pass_floats, (const Grid& g, int64_t first, int64_t last, const float* grad, float* out), (g, first, last, grad, out))
EACH(void, pass_halves, (const Grid& g, int64_t first, int64_t last, const int16_t* grad, float* out), (g, first, last, grad, out))
void value(const Grid& g, int64_t first, int64_t last, float* out) { floats(g, first, last, out); }
void value(const Grid& g, int64_t first, int64_t last, int16_t* out) { halves(g, first, last, out); }
void pass(const Grid& g, int64_t first, int64_t last, const float* grad, float* out) { pass_floats(g, first, last, grad, out); }
void pass(const Grid& g, int64_t first, int64_t last, const int16_t* grad, float* out) { pass_halves(g, first, last, grad, out); }

template <class Work>
void share(int64_t n, int threads, Work work) {
    nb::gil_scoped_release release;
    Tasks tasks((n + RUN - 1) / RUN, 1);
    on_threads(n < 4 * RUN ? 1 : threads, [&] {
        for (int64_t first, last; tasks.take(first, last);) work(first * RUN, std::min(n, last * RUN));
    });
}

Grid grid(const Array<const float>& x, const Array<const float>& scale, size_t other, float low, float high) {
    if (!scale.size() || x.size() % scale.size() || x.size() != other)
        throw std::invalid_argument("numbers, scales and results differ in size");
    return {x.data(), scale.data(), std::max<int64_t>(1, int64_t(x.size() / scale.size())), low, high};
}

template <class T>
void quantized(Array<const float> x, Array<const float> scale, float low, float high, Array<T> out, int threads) {
    const Grid g = grid(x, scale, out.size(), low, high);
    share(int64_t(x.size()), threads, [&](int64_t a, int64_t b) { value(g, a, b, out.data()); });
}

template <class T>
void passed(Array<const float> x, Array<const float> scale, float low, float high, Array<const T> grad,
            Array<float> out, int threads) {
    const Grid g = grid(x, scale, out.size(), low, high);
    if (grad.size() != x.size()) throw std::invalid_argument("numbers and gradients differ in size");
    share(int64_t(x.size()), threads, [&](int64_t a, int64_t b) { pass(g, a, b, grad.data(), out.data()); });
}

}  // namespace

void define_straight_through(nb::module_& m) {
    const auto numbers = nb::arg().noconvert();  // a copy of another type would take the result
    const auto number = nb::arg();
    m.def("quantized", &quantized<float>, numbers, numbers, number, number, numbers, number);
    m.def("quantized", &quantized<int16_t>, numbers, numbers, number, number, numbers, number);
    m.def("passed", &passed<float>, numbers, numbers, number, number, numbers, numbers, number);
    m.def("passed", &passed<int16_t>, numbers, numbers, number, number, numbers, numbers, number);
}

}  // namespace bitline
