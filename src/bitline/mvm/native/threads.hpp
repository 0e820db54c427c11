// Work shared by the threads of PyTorch's own pool.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>

namespace bitline {

// Tasks 0 to count - 1, handed out in runs of neighbours.
class Tasks {
    std::atomic<int64_t> next_{0};
    int64_t count_, run_;

   public:
    Tasks(int64_t count, int64_t run) : count_(count), run_(run < 1 ? 1 : run) {}
    bool take(int64_t& first, int64_t& last) {
        first = next_.fetch_add(run_, std::memory_order_relaxed);
        if (first >= count_) return false;
        last = first + run_ < count_ ? first + run_ : count_;
        return true;
    }
};

// Call work() on some threads at once and wait for all. They are those of the OpenMP runtime that PyTorch has loaded, which
// are there already and do not compete with it; where none is found, new ones. Throws what work throws first.
void on_threads(int threads, const std::function<void()>& work);

// "OpenMP of PyTorch", or "new threads".
const char* kind_of_threads();

}  // namespace bitline
