#include "threads.hpp"

#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <dlfcn.h>
#endif

namespace bitline {
namespace {

// Entry point of a parallel region in libgomp; the OpenMP runtimes of LLVM and Intel have it too on Linux. PyTorch loads
// its own copy for all to see, so that no second runtime with a second pool is linked here.
using Region = void (*)(void (*)(void*), void*, unsigned, unsigned);

Region find_region() {
#if defined(__unix__) || defined(__APPLE__)
    return reinterpret_cast<Region>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
#else
    return nullptr;
#endif
}

Region region() {
    static const Region found = find_region();
    return found;
}

struct Shared {
    const std::function<void()>& work;
    std::mutex lock;
    std::exception_ptr error;

    static void call(void* data) {
        Shared& self = *static_cast<Shared*>(data);
        try {
            self.work();
        } catch (...) {
            const std::lock_guard<std::mutex> held(self.lock);
            if (!self.error) self.error = std::current_exception();
        }
    }
};

}  // namespace

void on_threads(int threads, const std::function<void()>& work) {
    if (threads <= 1) return work();
    Shared shared{work, {}, {}};
    if (region()) {
        region()(Shared::call, &shared, unsigned(threads), 0);
    } else {
        std::vector<std::thread> others;
        for (int i = 1; i < threads; i++) others.emplace_back(Shared::call, &shared);
        Shared::call(&shared);
        for (auto& t : others) t.join();
    }
    if (shared.error) std::rethrow_exception(shared.error);
}

const char* kind_of_threads() { return region() ? "OpenMP of PyTorch" : "new threads"; }

}  // namespace bitline
