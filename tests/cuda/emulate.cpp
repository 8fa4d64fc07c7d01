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

namespace emulate {

int shared_limit = 227 << 10, multiprocessors = 2;
Switches switches;
std::set<std::pair<const char*, int>> reached;

namespace {

constexpr std::size_t STACK = 256 << 10, GUARD = 256, ALIVE = 3, SHARED = 256 << 10;
constexpr unsigned char GUARD_BYTE = 0xa5;

ucontext_t scheduler;
Fiber* current = nullptr;
Call body = nullptr;
const void* body_arguments = nullptr;
std::size_t body_size = 0;  // of the arguments
std::mt19937_64 random_numbers;
unsigned char* stacks = nullptr;
std::size_t stacks_size = 0;
unsigned char* shared = nullptr;  // of all slots: pages of their own

void* own_pages(std::size_t bytes) {
    void* const pages = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (pages == MAP_FAILED) throw std::bad_alloc();
    return pages;
}

[[noreturn]] void fail(const std::string& what) { throw std::logic_error("emulation: " + what); }

void stop(State state) {
    Fiber* const me = current;
    me->state = state;
    observer::go(nullptr);
    swapcontext(&me->context, &scheduler);
}

void enter() {
    body(body_arguments);
    stop(State::done);
}

void prepare(Fiber& fiber) {
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack, fiber.context.uc_stack.ss_size = STACK;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, enter, 0);
}

// A barrier that orders memory, or (a shuffle) only execution.
void wait(State state, unsigned key, unsigned count, const Site& at, bool orders) {
    Fiber& me = *current;
    Meeting& meeting = state == State::at_warp_barrier ? me.block->warps[me.warp()].meetings[key] : me.block->meetings[key];
    me.at = at, me.key = key, me.count = count, me.orders = orders;
    const unsigned use = meeting.uses;
    ++meeting.waiting;
    if (orders) observer::arrive(me, meeting);
    stop(state);
    if (orders) observer::depart(me, meeting, use);
}

bool removed(const Site& at) {
    reached.emplace(at.file, at.line);
    if (at.line != switches.without_line) return false;
    const std::string here = at.file, &file = switches.without_file;
    return here.size() >= file.size() && here.compare(here.size() - file.size(), file.size(), file) == 0;
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
            current = fiber, threadIdx.x = fiber->thread, blockIdx.x = fiber->block->index;
            observer::go(fiber);
            swapcontext(&scheduler, &fiber->context);
            current = nullptr;
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
        block->shared = memory + GUARD + switches.shift;
        std::memset(memory, GUARD_BYTE, bytes_ + 2 * GUARD + switches.shift);
        std::memset(block->shared, random_order() && random_bits() % 2 ? 0x7b : 0xff, bytes_);  // as floats: 1e36, NaN
        block->fibers.resize(threads_), block->warps.resize((threads_ + WARP - 1) / WARP);
        for (unsigned t = 0; t < threads_; ++t) {
            Fiber& fiber = block->fibers[t];
            fiber.thread = t, fiber.block = block.get();
            fiber.stack = stacks + (std::size_t(slot) * threads_ + t) * STACK;
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
            if (meeting.waiting == 1) meeting.count = fiber.count;
            if (meeting.count != fiber.count) fail("threads wait at a barrier for different numbers of threads");
            if (meeting.waiting == fiber.count) release(fiber, meeting);
        }
    }

    // Lets those go on that have waited together: at the same call of the barrier. A device would let some of them
    // through together even at different ones, and what follows would be anybody's guess.
    void release(const Fiber& last, Meeting& meeting) {
        together_.clear();
        const bool of_warp = last.state == State::at_warp_barrier;
        const unsigned first = of_warp ? last.warp() * WARP : 0, end = of_warp ? first + WARP : threads_;
        for (unsigned t = first; t < std::min(end, threads_); ++t) {
            Fiber& fiber = last.block->fibers[t];
            if (fiber.state != last.state || fiber.key != last.key) continue;
            if (fiber.at.address != last.at.address && (last.key == 0 || fiber.warp() == last.warp())) {
                fail("threads wait together at different barriers of the code: " + fiber.at.text() + " and " +
                     last.at.text());
            }
            together_.push_back(&fiber);
        }
        meeting.waiting = 0, ++meeting.uses;
        if (last.orders) observer::release(together_);
        for (Fiber* fiber : together_) {
            fiber->state = State::ready;
            fiber->block->warps[fiber->warp()].ready |= 1u << fiber->lane();
        }
    }

    void end(Block& block) {
        observer::end(block);
        for (std::size_t i = 0; i < GUARD; ++i) {
            if (block.shared[bytes_ + i] != GUARD_BYTE) fail("shared memory overrun");
        }
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

unsigned lanes_of(const Fiber& fiber) {
    const unsigned lanes = std::min(WARP, fiber.block->threads - fiber.warp() * WARP);
    return lanes == WARP ? 0xffffffffu : (1u << lanes) - 1;
}

void warp_wait(unsigned mask, const Site& at, bool orders) {
    mask &= lanes_of(*current);
    if ((mask >> current->lane() & 1) == 0) {
        // On the fiber, where nothing may be thrown: a barrier that is never complete.
        wait(State::at_warp_barrier, mask, WARP + 1, at, false);
    }
    wait(State::at_warp_barrier, mask, static_cast<unsigned>(__builtin_popcount(mask)), at, orders);
}

// What every lane of the warp gives, for all of them to read, once all have given. The next exchange uses other memory,
// so that a fast lane does not overwrite what a slow one still reads.
template <std::size_t SIZE>
const std::array<std::uint32_t, 6>* exchange(const std::array<std::uint32_t, SIZE>& mine, const Site& at) {
    Fiber& me = *current;
    auto& given = me.block->warps[me.warp()].given[me.turn ^= 1];
    std::copy(mine.begin(), mine.end(), given[me.lane()].begin());
    warp_wait(0xffffffffu, at, false);
    return given.data();
}

}  // namespace

std::string Site::text() const {
    const std::string path = file == nullptr ? "?" : file;
    return path.substr(path.find_last_of('/') + 1) + ":" + std::to_string(line);
}
unsigned char* shared_memory() { return current->block->shared; }
Fiber* running() { return current; }
void preempt() { stop(State::ready); }
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

void named_barrier(unsigned id, unsigned threads, const char* file, int line) {
    const Site at = {file, line, __builtin_return_address(0)};
    if (!removed(at)) wait(State::at_block_barrier, id, threads, at, true);
}

}  // namespace emulate

void __syncthreads(const char* file, int line) {
    const emulate::Site at = {file, line, __builtin_return_address(0)};
    if (!emulate::removed(at)) {
        emulate::wait(emulate::State::at_block_barrier, 0, emulate::current->block->threads, at, true);
    }
}

void __syncwarp(unsigned mask, const char* file, int line) {
    const emulate::Site at = {file, line, __builtin_return_address(0)};
    if (!emulate::removed(at)) emulate::warp_wait(mask, at, true);
}

float __shfl_xor_sync(unsigned, float value, int lanes, const char* file, int line) {
    const emulate::Site at = {file, line, __builtin_return_address(0)};
    const unsigned from = emulate::current->lane() ^ static_cast<unsigned>(lanes);
    return __uint_as_float(emulate::exchange<1>({__float_as_uint(value)}, at)[from][0]);
}

double __shfl_xor_sync(unsigned, double value, int lanes, const char* file, int line) {
    const emulate::Site at = {file, line, __builtin_return_address(0)};
    const unsigned from = emulate::current->lane() ^ static_cast<unsigned>(lanes);
    std::array<std::uint32_t, 2> words;
    std::memcpy(words.data(), &value, 8);
    std::memcpy(&value, emulate::exchange<2>(words, at)[from].data(), 8);
    return value;
}

void glsk::cuda::mma_bf16(float (&d)[4], const uint4& a, unsigned b0, unsigned b1, const float (&c)[4], const char* file,
                          int line) {
    const emulate::Site at = {file, line, __builtin_return_address(0)};
    const unsigned lane = emulate::current->lane(), g = lane / 4, t = lane % 4;
    const auto* given = emulate::exchange<6>({a.x, a.y, a.z, a.w, b0, b1}, at);
    float result[4];
    for (unsigned i = 0; i < 4; ++i) {
        const unsigned row = i / 2, column = 2 * t + i % 2;
        double sum = c[i];
        for (unsigned k = 0; k < 16; ++k) {
            const unsigned from = k % 8 / 2, half = 16 * (k % 2);
            const std::uint32_t left = given[4 * g + from][2 * (k / 8) + row] >> half & 0xffff;
            const std::uint32_t right = given[4 * column + from][4 + k / 8] >> half & 0xffff;
            sum += double(from_bf16(left)) * from_bf16(right);
        }
        result[i] = static_cast<float>(sum);
    }
    std::copy(result, result + 4, d);
}

// What the tests switch, for ctypes. order: 0 forward, 1 backward, 2 random. shared_limit: bytes of a block.
// watch: whether memory accesses are looked at, which takes many times longer.
extern "C" void glsk_emulate(int order, unsigned seed, int shared_limit, int multiprocessors, int watch) {
    emulate::switches.order = static_cast<emulate::Order>(order), emulate::switches.seed = seed;
    emulate::shared_limit = shared_limit;
    emulate::multiprocessors = multiprocessors;
    emulate::observer::watch(watch != 0);
}
