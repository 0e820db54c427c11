#include "avx512.hpp"

namespace bitline {

void run_avx512(const Plan& p, const View& v, const Output& o, Tasks& tasks, bool shortcuts) {
    Engine<Avx512>(p, v, o, shortcuts).run(tasks);
}

}  // namespace bitline
