// A detector of races and of accesses to the wrong memory, for kernels that are compiled with -fsanitize=thread and
// without its runtime: the calls which that puts at every access come here (emulate_hooks.cpp).
#pragma once

#include <cstddef>

namespace emulate::races {

void access(const void* at, std::size_t bytes, bool write, const void* from);
void misaligned(const char* file, int line, const void* at, std::size_t alignment);

}  // namespace emulate::races
