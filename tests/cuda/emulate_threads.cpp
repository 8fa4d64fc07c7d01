// The observer of a build with ThreadSanitizer: a CUDA thread is one of its fibers, and barriers alone order them.
#include <sanitizer/tsan_interface.h>
#include <sys/mman.h>

#include <memory>
#include <stdexcept>
#include <string>

#include "emulate_blocks.h"

namespace emulate {
namespace {

void* host = nullptr;
char begun, ended;  // what the host releases and a block's threads acquire; what those release and it acquires, at last
int reports = 0;

// Fibers are dear: a launch uses those of launches before it, but none twice, since nothing orders its blocks.
constexpr std::size_t MOST_KEPT = 1024;
std::vector<void*> rested, used;

void become(void* fiber) { __tsan_switch_to_fiber(fiber, __tsan_switch_to_fiber_no_sync); }

// Other threads will use it, which nothing orders after these: to ThreadSanitizer, new memory.
void renew(const Pages& pages) {
    constexpr int OWN = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
    if (mmap(pages.begin, pages.bytes, PROT_READ | PROT_WRITE, OWN, -1, 0) == MAP_FAILED) throw std::bad_alloc();
}

}  // namespace

namespace observer {

void watch(bool) {}
void launch(unsigned) { host = __tsan_get_current_fiber(), reports = 0; }
void abandon() {
    __tsan_acquire(&ended);
    rested.insert(rested.end(), used.begin(), used.end());
    used.clear();
}
void finish() {
    abandon();
    if (reports > 0) throw std::logic_error("ThreadSanitizer: " + std::to_string(reports) + " reports");
}

void begin(Block& block) {
    __tsan_release(&begun);
    for (Fiber& fiber : block.fibers) {
        if (rested.empty()) {
            fiber.handle = __tsan_create_fiber(0);
        } else {
            fiber.handle = rested.back();
            rested.pop_back();
            become(fiber.handle), __tsan_acquire(&begun), become(host);
        }
        const std::string name = "thread " + std::to_string(fiber.thread) + " of block " + std::to_string(block.index);
        __tsan_set_fiber_name(fiber.handle, name.c_str());
    }
}

void end(Block& block) {
    for (Fiber& fiber : block.fibers) {
        become(fiber.handle);
        __tsan_release(&ended);
        become(host);
        if (rested.size() + used.size() < MOST_KEPT) {
            used.push_back(fiber.handle);
        } else {
            __tsan_destroy_fiber(fiber.handle);
        }
    }
    renew(block.shared_pages), renew(block.stack_pages);
}

void go(Fiber* fiber) { become(fiber == nullptr ? host : fiber->handle); }
void went(Fiber*) {}

// By memory of its own, since what is released adds up: another meeting's threads must not acquire it.
void release(const std::vector<Fiber*>& together) {
    const auto mark = std::make_unique<char>();
    for (Fiber* fiber : together) become(fiber->handle), __tsan_release(mark.get());
    for (Fiber* fiber : together) become(fiber->handle), __tsan_acquire(mark.get());
    become(host);
}

void stacks(const void*, std::size_t) {}
void know(const void*, std::size_t, const std::string&, Contents) {}  // what is allocated is known
void forget() {}

}  // namespace observer
}  // namespace emulate

extern "C" void __tsan_on_report(void*) { ++emulate::reports; }
