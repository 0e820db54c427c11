// The Python side: plans, paths and threads.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "build.hpp"
#include "check.hpp"
#ifdef BITLINE_AMX
#include <cpuid.h>
#ifdef __linux__
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#endif
#endif

namespace nb = nanobind;

namespace bitline {

void define_programming(nb::module_&);
void define_straight_through(nb::module_&);
void run_portable(const Plan&, const View&, const Output&, Tasks&, bool);
#ifdef BITLINE_X86
void run_avx2(const Plan&, const View&, const Output&, Tasks&, bool);
void run_avx512(const Plan&, const View&, const Output&, Tasks&, bool);
#endif
#ifdef BITLINE_AMX
void run_amx(const Plan&, const View&, const Output&, Tasks&, bool);
void run_amx_emulated(const Plan&, const View&, const Output&, Tasks&, bool);
#endif

namespace {

struct Path {
    const char* name;
    Machine machine;
    Run run;
    std::string (*why_not)();  // it does not run here; empty where it does
    bool offered = true;       // to those who do not ask for it by name
};

#ifdef BITLINE_X86
std::string lacks(const char* feature) { return std::string("this processor has no ") + feature; }
std::string no_ssse3() { return __builtin_cpu_supports("ssse3") ? "" : lacks("SSSE3"); }
std::string no_avx2() {
    return !__builtin_cpu_supports("avx2") ? lacks("AVX2") : !__builtin_cpu_supports("fma") ? lacks("FMA") : "";
}
std::string no_avx512() {
    const std::string why = no_avx2();
    return !why.empty()                              ? why
           : !__builtin_cpu_supports("avx512f")      ? lacks("AVX-512")
           : !__builtin_cpu_supports("avx512bw")     ? lacks("AVX-512 BW")
           : !__builtin_cpu_supports("avx512vl")     ? lacks("AVX-512 VL")
           : !__builtin_cpu_supports("avx512dq")     ? lacks("AVX-512 DQ")
           : !__builtin_cpu_supports("avx512vbmi")   ? lacks("AVX-512 VBMI")
                                                     : "";
}
#else
std::string always() { return ""; }
#endif

constexpr Machine AVX512{6, true}, AMX{6, true, true};

#ifdef BITLINE_AMX
std::string no_tiles() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d >> 24 & 1)) return lacks("AMX");
    if (!(d >> 25 & 1)) return lacks("AMX-INT8");
    __get_cpuid(1, &a, &b, &c, &d);
    uint32_t low = 0, high = 0;
    if (c >> 27 & 1) __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    if ((low >> 17 & 3) != 3) return "the operating system does not save the state of AMX";
#ifdef __linux__
    constexpr long REQUEST_STATE = 0x1023, TILE_DATA = 18;
    if (syscall(SYS_arch_prctl, REQUEST_STATE, TILE_DATA)) return "the kernel refuses this process the use of AMX";
    return "";
#else
    return "how to ask this operating system for AMX is not known";
#endif
}

// Compares in a child process first: what a faulty tile unit, kernel or hypervisor does to it does no harm here.
std::string disagrees(Run run) {
    constexpr const char* DIFFERS = "its tile products differ from those of path avx512";
#ifdef __linux__
    const pid_t child = fork();
    if (child == 0) _exit(agree(AMX, run, AVX512, run_avx512) ? 0 : 1);
    int status = 0;
    if (child > 0 && waitpid(child, &status, 0) == child) {
        if (WIFSIGNALED(status)) return "its tile products end in signal " + std::to_string(WTERMSIG(status));
        return WEXITSTATUS(status) == 0 ? "" : DIFFERS;
    }
#endif
    return agree(AMX, run, AVX512, run_avx512) ? "" : DIFFERS;
}

std::string no_amx() {
    static const std::string why = [] {
        for (auto reason : {no_avx512, no_tiles})
            if (const std::string r = reason(); !r.empty()) return r;
        return disagrees(run_amx);
    }();
    return why;
}
std::string no_emulation() {
    static const std::string why = [] {
        const std::string r = no_avx512();
        return r.empty() ? disagrees(run_amx_emulated) : r;
    }();
    return why;
}
#endif

// Fastest first.
const Path PATHS[] = {
#ifdef BITLINE_AMX
    {"amx", AMX, run_amx, no_amx},
#endif
#ifdef BITLINE_X86
    {"avx512", AVX512, run_avx512, no_avx512},
    {"avx2", {4, false}, run_avx2, no_avx2},
    {"portable", {4, false}, run_portable, no_ssse3},
#else
    {"portable", {4, false}, run_portable, always},
#endif
#ifdef BITLINE_AMX
    {"amx-emulated", AMX, run_amx_emulated, no_emulation, false},
#endif
};

std::string why_not(const std::string& name) {
    for (const Path& p : PATHS)
        if (name == p.name) return p.why_not();
    return "this build has no such path";
}

const Path& find(const std::string& name) {
    const std::string why = why_not(name);
    if (!why.empty()) throw std::invalid_argument("path " + name + " does not run here: " + why);
    return *std::find_if(std::begin(PATHS), std::end(PATHS), [&](const Path& p) { return name == p.name; });
}

template <class T>
using Array = nb::ndarray<const T, nb::c_contig, nb::device::cpu>;
using Bytes = nb::ndarray<const uint8_t, nb::device::cpu>;

struct Compiled {
    Plan plan;
    const Path* path;
    double noise_variance;
};

std::vector<std::string> paths() {
    std::vector<std::string> names;
    for (const Path& p : PATHS)
        if (p.offered && p.why_not().empty()) names.push_back(p.name);
    return names;
}

Compiled compile(const std::string& path, nb::object levels, std::vector<int> bounds, std::vector<int> digit_shift,
                 std::vector<int> digit_mask, std::vector<double> digit_weight, std::vector<double> slice_weight,
                 std::vector<double> side_weight, bool subtracts, int digital_offset, Array<double> lsb,
                 Array<double> offset, std::optional<int> low, std::optional<int> high, nb::callable places, bool count,
                 double noise_variance, std::optional<Array<uint8_t>> built) {
    const Path& p = find(path);
    Layer l{};
    const auto take = [&](auto array) {
        if (array.ndim() != 5) throw std::invalid_argument("levels need 5 axes");
        l.groups = int(array.shape(0)), l.sides = int(array.shape(1)), l.slices = int(array.shape(2));
        l.rows = int(array.shape(3)), l.stored = int(array.shape(4));
        return array.data();
    };
    Array<uint8_t> bytes;
    Array<int16_t> steps;
    Array<float> reals;
    if (nb::try_cast(levels, bytes, false)) {
        l.integral = true;
        l.bytes = take(bytes);
    } else if (nb::try_cast(levels, steps, false)) {
        l.steps = take(steps);
    } else {
        reals = nb::cast<Array<float>>(levels);
        l.reals = take(reals);
    }
    l.subtracts = subtracts;
    l.bounds = std::move(bounds);
    if (built) {
        if (built->size() != size_t(l.groups) * (l.bounds.size() - 1) * l.stored)
            throw std::invalid_argument("built columns need axes of groups, row tiles and stored columns");
        l.built.assign(built->data(), built->data() + built->size());
    }
    l.digit_shift = std::move(digit_shift), l.digit_mask = std::move(digit_mask);
    l.digit_weight = std::move(digit_weight);
    l.slice_weight = std::move(slice_weight), l.side_weight = std::move(side_weight);
    l.digital_offset = digital_offset;
    if (lsb.ndim() != 4 || offset.ndim() != 4 || lsb.size() != offset.size())
        throw std::invalid_argument("lsb and offset need 4 axes and one shape");
    for (int i = 0; i < 4; i++) l.range_shape[i] = int(lsb.shape(i));
    l.lsb.assign(lsb.data(), lsb.data() + lsb.size());
    l.offset.assign(offset.data(), offset.data() + offset.size());
    l.limited = low.has_value();
    l.low = low.value_or(0), l.high = high.value_or(0);
    l.places = [&] {
        nb::gil_scoped_acquire hold;
        const nb::object found = places();
        return found.is_none() ? -1 : nb::cast<int>(found);
    };
    l.noise_variance = noise_variance;
    nb::gil_scoped_release release;
    return {build(l, p.machine, count), &p, noise_variance};
}

// View of input vectors, (images, positions..., groups, row axes...), as strides say.
View view_of(const Plan& plan, const Bytes& x, int position_axes) {
    View v;
    v.data = x.data();
    const int axes = int(x.ndim());
    const auto offsets = [&](int first, int last) {
        std::vector<int64_t> at(1, 0);
        for (int a = first; a < last; a++) {
            std::vector<int64_t> next;
            next.reserve(at.size() * x.shape(a));
            for (int64_t o : at)
                for (size_t i = 0; i < x.shape(a); i++) next.push_back(o + int64_t(i) * x.stride(a));
            at = std::move(next);
        }
        return at;
    };
    if (axes < 3 + position_axes) throw std::invalid_argument("the view has too few axes");
    v.vector = offsets(0, 1 + position_axes);
    v.group = x.stride(1 + position_axes);
    v.row = offsets(2 + position_axes, axes);
    if (int(v.row.size()) != plan.rows || int(x.shape(1 + position_axes)) != plan.groups)
        throw std::invalid_argument("the view does not have the layer's rows and groups");
    return v;
}

// Products of a digit and a level that make it worth it to wake a thread: some tens of microseconds.
constexpr double WORTH_A_THREAD = double(1 << 25);

void spread(const Compiled& c, const View& v, const Output& out, int threads, bool shortcuts) {
    nb::gil_scoped_release release;
    const Plan& p = c.plan;
    const int64_t count = tasks_of(p, v), blocks = column_blocks(p);
    const double work = double(v.vector.size()) * p.groups * p.rows * p.stored * p.planes * p.digits;
    // All threads or one: a pool that shrinks lets threads go, and starts them anew.
    if (count < 2 || work < 2 * WORTH_A_THREAD) threads = 1;
    // Inputs are prepared once for neighbouring blocks of columns, where there is enough to share out without cutting these.
    const int64_t fair = count / (std::max(threads, 1) * 8);
    Tasks tasks(count, fair >= blocks ? fair / blocks * blocks : std::max<int64_t>(1, fair));
    on_threads(threads, [&] { c.path->run(p, v, out, tasks, shortcuts); });
}

// Which reads these are: (seed, number of the first image), if they are noisy.
using Reads = std::optional<std::tuple<uint64_t, int64_t>>;

void set_noise(View& v, const Compiled& c, const Reads& reads, const Bytes& x) {
    if (reads.has_value() != (c.noise_variance > 0))
        throw std::invalid_argument("plan and reads disagree on read noise");
    if (!reads) return;
    v.noise.on = true;
    std::tie(v.noise.seed, v.noise.first_image) = *reads;
    v.noise.positions = std::max<int64_t>(1, int64_t(v.vector.size()) / std::max<int64_t>(1, int64_t(x.shape(0))));
    v.noise.variance = c.noise_variance;
}

int64_t multiply(const Compiled& c, Bytes x, int position_axes, nb::ndarray<double, nb::c_contig, nb::device::cpu> y,
                 int threads, bool shortcuts, bool count, Reads reads) {
    View v = view_of(c.plan, x, position_axes);
    set_noise(v, c, reads, x);
    if (y.size() != v.vector.size() * c.plan.groups * c.plan.stored)
        throw std::invalid_argument("the result has another size");
    int64_t clipped = 0;
    Output out;
    out.exact = y.data();
    if (count) out.clipped = &clipped;
    spread(c, v, out, threads, shortcuts);
    return clipped;
}

void multiply_scaled(const Compiled& c, Bytes x, int position_axes,
                     nb::ndarray<float, nb::c_contig, nb::device::cpu> y, bool channels_first, Array<double> factor,
                     std::optional<Array<float>> bias, int threads, bool shortcuts, Reads reads) {
    View v = view_of(c.plan, x, position_axes);
    set_noise(v, c, reads, x);
    const int64_t channels = int64_t(c.plan.groups) * c.plan.stored, n = int64_t(v.vector.size());
    if (int64_t(y.size()) != n * channels || int64_t(factor.size()) != channels ||
        (bias && int64_t(bias->size()) != channels))
        throw std::invalid_argument("the result, its factor or its bias has another size");
    Output out;
    out.real = y.data();
    out.factor = factor.data();
    out.bias = bias ? bias->data() : nullptr;
    const int64_t positions = x.shape(0) ? n / int64_t(x.shape(0)) : 1;
    out.channel_stride = channels_first ? positions : 1;
    out.offset.resize(n);
    for (int64_t i = 0; i < n; i++)
        out.offset[i] = channels_first ? i / positions * positions * channels + i % positions : i * channels;
    spread(c, v, out, threads, shortcuts);
}

const char* kind(const Compiled& c) {
    if (c.plan.tiled) switch (c.plan.sums) {
        case Sums::bytes: return c.plan.tables.empty() ? "tiles" : "tiles, code tables";
        case Sums::words: return "tiles, words";
        default: return "tiles, floats";
    }
    switch (c.plan.sums) {
        case Sums::bytes: return c.plan.tables.empty() ? "bytes" : "bytes, code tables";
        case Sums::words: return c.plan.parts == 1 ? "words" : "two words";
        default: return "floats";
    }
}

}  // namespace

NB_MODULE(_native, m) {
    nb::set_leak_warnings(false);
    nb::class_<Compiled>(m, "Plan").def_prop_ro("kind", &kind).def_prop_ro("path", [](const Compiled& c) {
        return std::string(c.path->name);
    });
    m.def("quantiles", [] { return std::vector<int>(quantiles().table, quantiles().table + 65536); });
    m.def("tail", [] { return std::vector<int>(quantiles().far, quantiles().far + TAIL_KNOTS); });
    m.attr("RESOLUTION") = RESOLUTION;
    m.def("paths", &paths);
    m.def("threads", &kind_of_threads);
    m.def("why_not", &why_not, nb::arg("path"));
    m.def("compile", &compile, nb::arg("path"), nb::arg("levels"), nb::kw_only(), nb::arg("bounds"),
          nb::arg("digit_shift"), nb::arg("digit_mask"), nb::arg("digit_weight"), nb::arg("slice_weight"),
          nb::arg("side_weight"), nb::arg("subtracts"), nb::arg("digital_offset"), nb::arg("lsb"), nb::arg("offset"),
          nb::arg("low").none(), nb::arg("high").none(), nb::arg("places"), nb::arg("count"), nb::arg("noise_variance"),
          nb::arg("built").none() = nb::none());
    m.def("multiply", &multiply, nb::arg("plan"), nb::arg("x"), nb::arg("position_axes"), nb::arg("y"), nb::kw_only(),
          nb::arg("threads"), nb::arg("shortcuts"), nb::arg("count"), nb::arg("reads").none());
    m.def("multiply_scaled", &multiply_scaled, nb::arg("plan"), nb::arg("x"), nb::arg("position_axes"), nb::arg("y"),
          nb::kw_only(), nb::arg("channels_first"), nb::arg("factor"), nb::arg("bias").none(), nb::arg("threads"),
          nb::arg("shortcuts"), nb::arg("reads").none());
    define_programming(m);
    define_straight_through(m);
}

}  // namespace bitline
