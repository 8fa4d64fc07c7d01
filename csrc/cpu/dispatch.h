// The kernels of the best instruction set this machine has.
#pragma once

#include <string>
#include <vector>

#include "cpu/types.h"

namespace glsk {

const Kernels& kernels();

// Uses another instruction set than the best: for tests. Returns false if this machine, or this build, lacks it.
bool select_isa(const std::string& name);

// Those that this build and this machine both have, best first.
std::vector<std::string> available_isas();

// What of the instruction sets that matter here the processor has.
std::vector<std::string> cpu_features();

}  // namespace glsk
