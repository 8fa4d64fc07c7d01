// The observer of a build with AddressSanitizer, which is told of the fibers' stacks and of what is no shared memory.
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>

#include <algorithm>

#include "emulate_blocks.h"

namespace emulate {
namespace {

void* host_frames = nullptr;  // AddressSanitizer's own, of the scheduler; a fiber's are its handle
const void* host_stack = nullptr;
std::size_t host_bytes = 0;

}  // namespace

namespace observer {

void watch(bool) {}
void launch(unsigned) {}
void finish() {}
void abandon() {}

void begin(Block& block) {
    const std::size_t bytes = block.bytes - std::min(block.bytes, hidden_bytes());
    ASAN_POISON_MEMORY_REGION(block.shared_pages.begin, block.shared_pages.bytes);
    ASAN_UNPOISON_MEMORY_REGION(block.shared, bytes);
}

void end(Block& block) {
    ASAN_UNPOISON_MEMORY_REGION(block.shared_pages.begin, block.shared_pages.bytes);
    // What lies between the variables of functions that have not returned.
    if (block.remaining > 0) ASAN_UNPOISON_MEMORY_REGION(block.stack_pages.begin, block.stack_pages.bytes);
}

void go(Fiber* fiber) {
    if (fiber != nullptr) return __sanitizer_start_switch_fiber(&host_frames, fiber->stack, STACK);
    Fiber& me = *running();
    __sanitizer_start_switch_fiber(me.state == State::done ? nullptr : &me.handle, host_stack, host_bytes);
}

void went(Fiber* fiber) {
    if (fiber == nullptr) return __sanitizer_finish_switch_fiber(host_frames, nullptr, nullptr);
    __sanitizer_finish_switch_fiber(fiber->handle, &host_stack, &host_bytes);
}

void release(const std::vector<Fiber*>&) {}
void stacks(const void*, std::size_t) {}
void know(const void*, std::size_t, const std::string&, Contents) {}  // what is allocated is known
void forget() {}

}  // namespace observer
}  // namespace emulate
