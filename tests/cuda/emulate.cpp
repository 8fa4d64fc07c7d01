// The emulator's scheduler: fibers of several thread blocks that are alive at the same time.
#include "emulate.h"

#include <sys/mman.h>

#include <memory>
#include <new>
#include <random>
#include <set>
#include <string>

#include "emulate_blocks.h"
#include "emulate_switch.h"

dim3 threadIdx, blockIdx, blockDim, gridDim;

// Not by AddressSanitizer, which would look at guards and forget a stack as it is left.
#define GLSK_UNWATCHED __attribute__((noinline, no_sanitize("address")))

namespace emulate {

int shared_limit = 227 << 10, multiprocessors = 2;
Switches switches;
std::set<std::pair<const char*, int>> reached;

namespace {

constexpr std::size_t GUARD = 256, ALIVE = 3, SHARED = 256 << 10;
constexpr unsigned char GUARD_BYTE = 0xa5;

Registers scheduler;
Fiber* current = nullptr;
Call body = nullptr;
const void* body_arguments = nullptr;
std::size_t body_size = 0;  // of the arguments
std::mt19937_64 random_numbers;
unsigned char* stacks = nullptr;
std::size_t stacks_size = 0;
unsigned char* shared = nullptr;  // of all slots: pages of their own

void* own_pages(std::size_t bytes) {
    constexpr int OWN = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void* const pages = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, OWN, -1, 0);
    if (pages == MAP_FAILED) throw std::bad_alloc();
    return pages;
}

[[noreturn]] void fail(const std::string& what) { throw std::logic_error("emulation: " + what); }

GLSK_UNWATCHED void check_guard(const Block& block) {
    for (std::size_t i = 0; i < GUARD; ++i) {
        if (block.shared[block.bytes + i] != GUARD_BYTE) fail("shared memory overrun");
    }
}

// From one stack to another by the compiler's own means: swapcontext would call the kernel of the operating system.
GLSK_UNWATCHED void stop(State state) {
    Fiber* const me = current;
    me->state = state;
    observer::go(nullptr);
    if (__builtin_setjmp(me->registers) == 0) __builtin_longjmp(scheduler, 1);
    observer::went(me);
}

GLSK_UNWATCHED void resume(Fiber* fiber) {
    current = fiber, threadIdx.x = fiber->thread, blockIdx.x = fiber->block->index;
    observer::go(fiber);
    if (__builtin_setjmp(scheduler) == 0) {
        if (!fiber->started) setcontext(&fiber->start);
        __builtin_longjmp(fiber->registers, 1);
    }
    observer::went(nullptr);
    current = nullptr;
}

void enter() {
    current->started = true;
    observer::went(current);
    body(body_arguments);
    stop(State::done);
}

void prepare(Fiber& fiber) {
    getcontext(&fiber.start);
    fiber.start.uc_stack.ss_sp = fiber.stack, fiber.start.uc_stack.ss_size = STACK;
    fiber.start.uc_link = nullptr;
    makecontext(&fiber.start, enter, 0);
}

class Grid {
public:
    Grid(unsigned grid, unsigned threads, std::size_t bytes) : threads_(threads), bytes_(bytes) {
        for (unsigned b = 0; b < grid; ++b) order_.push_back(switches.order == Order::backward ? grid - 1 - b : b);
        if (random_order()) std::shuffle(order_.begin(), order_.end(), random_numbers);
    }
    ~Grid() {
        for (auto& block : alive_) observer::end(*block);
    }

    void run() {
        for (;;) {
            while (alive_.size() < ALIVE && next_ < order_.size()) begin(order_[next_++]);
            if (alive_.empty()) return;
            Fiber* const fiber = pick();
            if (fiber == nullptr) stuck();
            fiber->block->warps[fiber->warp()].ready &= ~(1u << fiber->lane());
            resume(fiber);
            settle(*fiber);
        }
    }

private:
    void begin(unsigned index) {
        unsigned slot = 0;
        for (const auto& block : alive_) slot |= 1u << block->slot;
        slot = static_cast<unsigned>(__builtin_ctz(~slot));
        auto block = std::make_unique<Block>();
        block->index = index, block->slot = slot, block->threads = block->remaining = threads_, block->bytes = bytes_;
        unsigned char* const memory = shared + slot * SHARED;
        unsigned char* const slot_stacks = stacks + std::size_t(slot) * threads_ * STACK;
        block->shared_pages = {memory, SHARED}, block->stack_pages = {slot_stacks, threads_ * STACK};
        block->shared = memory + GUARD + switches.shift;
        std::memset(memory, GUARD_BYTE, bytes_ + 2 * GUARD + switches.shift);
        std::memset(block->shared, random_order() && random_bits() % 2 ? 0x7b : 0xff, bytes_);  // as floats: 1e36, NaN
        block->fibers.resize(threads_), block->warps.resize((threads_ + WARP - 1) / WARP);
        for (unsigned t = 0; t < threads_; ++t) {
            Fiber& fiber = block->fibers[t];
            fiber.thread = t, fiber.block = block.get();
            fiber.stack = slot_stacks + t * STACK;
            prepare(fiber);
            Warp& warp = block->warps[fiber.warp()];
            warp.ready |= 1u << fiber.lane(), warp.priority = random_bits();
        }
        observer::begin(*block);
        alive_.push_back(std::move(block));
    }

    // In order: from one warp to the next, from one block to the next. At random: a warp of high priority runs far
    // ahead of the others, until that changes.
    Fiber* pick() {
        if (random_order()) {
            Warp* best = nullptr;
            Block* of = nullptr;
            for (const auto& block : alive_) {
                for (Warp& warp : block->warps) {
                    if (warp.ready != 0 && (best == nullptr || warp.priority > best->priority)) {
                        best = &warp, of = block.get();
                    }
                }
            }
            if (best == nullptr) return nullptr;
            if (random_bits() % 64 == 0) best->priority = random_bits();
            unsigned lane = random_bits() % WARP;
            while ((best->ready >> lane & 1) == 0) lane = (lane + 1) % WARP;
            return &of->fibers[(best - of->warps.data()) * WARP + lane];
        }
        const unsigned warps = static_cast<unsigned>(alive_[0]->warps.size());
        const unsigned all = warps * static_cast<unsigned>(alive_.size());
        for (unsigned n = 0; n <= all; ++n) {
            if (cursor_ >= all) cursor_ = 0;
            const unsigned place = switches.order == Order::backward ? all - 1 - cursor_ : cursor_;
            Block& block = *alive_[place / warps];
            const std::uint32_t ready = block.warps[place % warps].ready;
            if (ready == 0) {
                ++cursor_;
                continue;
            }
            const unsigned lane = switches.order == Order::backward ? 31 - __builtin_clz(ready) : __builtin_ctz(ready);
            if ((ready & (ready - 1)) == 0) ++cursor_;  // its last one
            return &block.fibers[place % warps * WARP + lane];
        }
        return nullptr;
    }

    void settle(Fiber& fiber) {
        Block& block = *fiber.block;
        if (fiber.state == State::ready) {
            block.warps[fiber.warp()].ready |= 1u << fiber.lane();
        } else if (fiber.state == State::done) {
            if (--block.remaining == 0) end(block);
        } else {
            Meeting& meeting = fiber.state == State::at_warp_barrier ? block.warps[fiber.warp()].meetings[fiber.key]
                                                                     : block.meetings[fiber.key];
            if (++meeting.waiting == 1) meeting.count = fiber.count;
            if (meeting.count != fiber.count) fail("threads wait at a barrier for different numbers of threads");
            if (meeting.waiting == fiber.count) release(fiber, meeting);
        }
    }

    // Lets those go on that have waited together: at the same call of the barrier. A device would let some of them
    // through together even at different ones, and what follows would be anybody's guess.
    void release(const Fiber& last, Meeting& meeting) {
        together_.clear();
        const void* known = nullptr;
        const bool of_warp = last.state == State::at_warp_barrier;
        const unsigned first = of_warp ? last.warp() * WARP : 0, end = of_warp ? first + WARP : threads_;
        for (unsigned t = first; t < std::min(end, threads_); ++t) {
            Fiber& fiber = last.block->fibers[t];
            if (fiber.state != last.state || fiber.key != last.key) continue;
            if (fiber.at.address != last.at.address && (last.key == 0 || fiber.warp() == last.warp())) {
                fail("threads wait together at different barriers of the code: " + fiber.at.text() + " and " +
                     last.at.text());
            }
            if (last.orders && fiber.at.address != known) {
                reached.emplace(fiber.at.file, fiber.at.line), known = fiber.at.address;
            }
            together_.push_back(&fiber);
        }
        meeting.waiting = 0;
        if (last.orders) observer::release(together_);
        for (Fiber* fiber : together_) {
            fiber->state = State::ready;
            fiber->block->warps[fiber->warp()].ready |= 1u << fiber->lane();
        }
    }

    void end(Block& block) {
        check_guard(block);
        observer::end(block);
        alive_.erase(std::find_if(alive_.begin(), alive_.end(), [&](const auto& one) { return one.get() == &block; }));
        cursor_ = 0;
    }

    [[noreturn]] void stuck() const {
        std::set<std::string> sites;
        for (const auto& block : alive_) {
            for (const Fiber& fiber : block->fibers) {
                if (fiber.state != State::done) sites.insert(fiber.at.text());
            }
        }
        std::string all;
        for (const std::string& site : sites) all += (all.empty() ? " " : ", ") + site;
        fail("some threads wait at a barrier that others never reach:" + all);
    }

    unsigned threads_;
    std::size_t bytes_;
    std::vector<unsigned> order_;
    std::size_t next_ = 0;
    std::vector<std::unique_ptr<Block>> alive_;
    std::vector<Fiber*> together_;
    unsigned cursor_ = 0;
};

}  // namespace

std::string Site::text() const {
    const std::string path = file == nullptr ? "?" : file;
    return path.substr(path.find_last_of('/') + 1) + ":" + std::to_string(line);
}
unsigned char* shared_memory() { return current->block->shared; }
Fiber* running() { return current; }
void preempt() { stop(State::ready); }
void wait(State state, unsigned key, unsigned count, const Site& at, bool orders) {
    current->at = at, current->key = key, current->count = count, current->orders = orders;
    stop(state);
}
bool random_order() { return switches.order == Order::random; }
std::uint64_t random_bits() { return random_numbers(); }
bool is_argument(const void* at) {
    const auto offset = reinterpret_cast<std::uintptr_t>(at) - reinterpret_cast<std::uintptr_t>(body_arguments);
    return offset < body_size;
}
std::size_t hidden_bytes() { return switches.hide; }

void run_grid(unsigned grid, unsigned threads, std::size_t bytes, Call kernel, const void* arguments,
              std::size_t size) {
    if (bytes > static_cast<std::size_t>(shared_limit)) fail("too much shared memory");
    const std::size_t needed = ALIVE * threads * STACK;
    if (stacks_size < needed) {
        if (stacks != nullptr) munmap(stacks, stacks_size);
        stacks = static_cast<unsigned char*>(own_pages(needed));
        observer::stacks(stacks, needed);
        stacks_size = needed;
    }
    if (shared == nullptr) shared = static_cast<unsigned char*>(own_pages(ALIVE * SHARED));
    body = kernel, body_arguments = arguments, body_size = size;
    gridDim.x = grid, blockDim.x = threads;
    random_numbers.seed(switches.seed);
    observer::launch(threads);
    try {
        Grid(grid, threads, bytes).run();
    } catch (...) {
        observer::abandon();
        throw;
    }
    observer::finish();
}

}  // namespace emulate

// What the tests switch, for ctypes. order: 0 forward, 1 backward, 2 random. shared_limit: bytes of a block.
// watch: whether memory accesses are looked at, which takes many times longer.
extern "C" void glsk_emulate(int order, unsigned seed, int shared_limit, int multiprocessors, int watch) {
    emulate::switches.order = static_cast<emulate::Order>(order), emulate::switches.seed = seed;
    emulate::shared_limit = shared_limit;
    emulate::multiprocessors = multiprocessors;
    emulate::observer::watch(watch != 0);
}
