// Small calls of every kernel of csrc/cuda, for the emulator to look at.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

struct EmulatedCase {
    std::string name;
    std::function<std::uint64_t()> run;  // returns a digest of the results; throws what the emulator found
};

std::vector<EmulatedCase> emulated_cases();
