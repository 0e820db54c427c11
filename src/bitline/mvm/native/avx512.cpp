#include "avx512.hpp"

namespace bitline {

void run_avx512(const Plan& p, const View& v, const Output& o, int64_t first, int64_t last, bool shortcuts) {
    Engine<Avx512>(p, v, o, shortcuts).run(first, last);
}

}  // namespace bitline
