// What a test may switch in the emulator.
#pragma once

#include <cstddef>
#include <set>
#include <string>
#include <utility>

namespace emulate {

// In which order fibers run between barriers; in what is right it makes no difference.
enum class Order { forward, backward, random };

struct Switches {
    Order order = Order::forward;
    unsigned seed = 0;
    std::string without_file;  // the barrier in this line of this file (its path's end) is not there
    int without_line = -1;
    std::size_t workspace_shift = 0;  // bytes by which workspaces are
    std::size_t shift = 0;     // bytes by which shared memory is misaligned
    std::size_t hide = 0;      // bytes that shared memory is too small by
};

extern Switches switches;
extern std::set<std::pair<const char*, int>> reached;  // barriers that a thread has come to

}  // namespace emulate
