// The emulator's thread blocks, and who may watch them.
#pragma once

#include <ucontext.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace emulate {

constexpr unsigned WARP = 32;
constexpr std::size_t STACK = 256 << 10;  // bytes, of a fiber

struct Site {
    const char* file = nullptr;
    int line = 0;
    const void* address = nullptr;  // the call returns to: tells two calls in one line apart
    std::string text() const;
};

enum class State { ready, at_warp_barrier, at_block_barrier, done };

struct Meeting {
    unsigned waiting = 0, count = 0;  // how many wait at a barrier, and for how many
};

using Registers = void* [5];  // what __builtin_setjmp keeps

struct Block;

struct Fiber {
    ucontext_t start;
    Registers registers;
    bool started = false;
    unsigned thread = 0;
    Block* block = nullptr;
    State state = State::ready;
    Site at;             // where it waits,
    unsigned key = 0;    // at which barrier: lanes of a warp, or the number of a block's barrier,
    unsigned count = 0;  // for how many
    bool orders = false;  // whether that orders memory
    unsigned turn = 0;   // of the warp's exchanges
    unsigned char* stack = nullptr;
    void* handle = nullptr;  // the observer's

    unsigned warp() const { return thread / WARP; }
    unsigned lane() const { return thread % WARP; }
};

struct Warp {
    std::uint64_t priority = 0;
    std::uint32_t ready = 0;  // lanes
    std::array<std::array<std::uint32_t, 6>, WARP> given[2];
    std::map<std::uint32_t, Meeting> meetings;  // by lanes
};

struct Pages {
    unsigned char* begin = nullptr;
    std::size_t bytes = 0;
};

struct Block {
    unsigned index = 0, slot = 0, threads = 0, remaining = 0;
    unsigned char* shared = nullptr;
    std::size_t bytes = 0;  // of shared memory
    Pages shared_pages, stack_pages;  // of its slot
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    std::map<unsigned, Meeting> meetings;  // by number
};

enum class Contents { input, given, unwritten };  // only read; written before; nobody has written it

// What a build of the emulator looks at, by functions that one source file of the build defines.
namespace observer {

void watch(bool on);               // whether to look at memory accesses, where there is a choice
void launch(unsigned threads);     // a grid begins
void finish();                     // it has ended; throws if there is something to report
void abandon();                    // it ends in an exception
void begin(Block& block);          // with shared memory filled and its fibers there
void end(Block& block);            // too, when it has not come to its end
void go(Fiber* fiber);             // before it goes on; null: before the scheduler does
void went(Fiber* fiber);           // when it has, on its stack
void release(const std::vector<Fiber*>& together);               // from a barrier that orders memory, before they go on
void stacks(const void* begin, std::size_t bytes);               // of all fibers
// Memory that kernels may use beside their shared memory; once there is one, all other memory is an error.
void know(const void* begin, std::size_t bytes, const std::string& name, Contents contents);
void forget();

}  // namespace observer

Fiber* running();
void preempt();  // lets others go first
// At a barrier that orders memory, or (a shuffle) only execution.
void wait(State state, unsigned key, unsigned count, const Site& at, bool orders);
bool random_order();
std::uint64_t random_bits();
bool is_argument(const void* at);  // of the kernel, before each thread has its copy
std::size_t hidden_bytes();  // of shared memory, at its end, that a test takes away

}  // namespace emulate
