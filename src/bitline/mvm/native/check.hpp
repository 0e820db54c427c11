// Whether a path gives another one's numbers, on small random layers.
#pragma once

#include "build.hpp"

namespace bitline {

bool agree(Machine, Run, Machine, Run);

}  // namespace bitline
