// Two accesses of one launch to the same bytes, one of them a write, are a race unless barriers order them: known from
// vector clocks, one a thread, which count the barriers that it knows every thread of its block to have passed. Threads
// of different blocks are never ordered.
#include "emulate_races.h"

#include <algorithm>
#include <cstdio>
#include <map>

#include "emulate_regions.h"
#include "emulate_report.h"

namespace emulate {
namespace races {
namespace {

struct Readers {  // lanes of one warp, since the same barrier
    std::uint32_t block, clock, lanes;
    std::uint16_t warp;
    std::uint8_t bytes;
    const void* from;
    std::uint32_t next;
};

bool watching = true;
unsigned threads_of_block = 0;
std::map<unsigned, Region*> shared_of;                  // by slot
std::map<unsigned, std::vector<std::uint32_t>> clocks;  // [thread][thread], by slot
std::vector<Readers> nodes;
std::uint32_t unused = 0;  // first of a list of nodes
std::uintptr_t stacks_begin = 0, stacks_end = 0;

std::uint32_t* clock_of(const Fiber& fiber) { return static_cast<std::uint32_t*>(fiber.handle); }

bool ordered(const Fiber& me, std::uint32_t block, unsigned thread, std::uint32_t clock) {
    return block == me.block->index && (thread == me.thread || clock_of(me)[thread] >= clock);
}

// The lane of those readers whose access nothing orders before the thread's; -1: none.
int unordered_lane(const Fiber& me, const Readers& readers) {
    for (std::uint32_t lanes = readers.lanes; lanes != 0; lanes &= lanes - 1) {
        const int lane = __builtin_ctz(lanes);
        if (!ordered(me, readers.block, readers.warp * WARP + lane, readers.clock)) return lane;
    }
    return -1;
}

std::uint32_t new_node(const Readers& value) {
    if (unused == 0) return nodes.push_back(value), static_cast<std::uint32_t>(nodes.size() - 1);
    const std::uint32_t node = unused;
    unused = nodes[node].next;
    nodes[node] = value;
    return node;
}

void drop(std::uint32_t& link) {
    const std::uint32_t node = link;
    link = nodes[node].next;
    nodes[node].next = unused, unused = node;
}

std::string who(std::uint32_t block, unsigned thread) {
    return " (thread " + std::to_string(thread) + " of block " + std::to_string(block) + ")";
}

void race(const Region& region, std::uintptr_t at, const Fiber& me, bool write, const void* from, std::uint32_t block,
          unsigned thread, bool other_write, const void* other) {
    report({"race", from, other}, [&] {
        return std::string(other_write ? "written" : "read") + " at " + line_of(other) + who(block, thread) + ", " +
               (write ? "written" : "read") + " at " + line_of(from) + who(me.block->index, me.thread) +
               " without a barrier between: " + region.place(at);
    });
}

void add_reader(const Fiber& me, Cell& cell, std::uint8_t bytes, const void* from) {
    const std::uint32_t block = me.block->index, clock = clock_of(me)[me.thread], lane = 1u << me.lane();
    if (cell.many) return;
    for (std::uint32_t* link = &cell.readers; *link != 0;) {
        Readers& node = nodes[*link];
        if (node.block != block) {  // of the others' one entry is enough: no writer is ordered after both
            while (node.next != 0) drop(node.next);
            cell.many = true;
            break;
        }
        if (node.warp == me.warp() && node.clock == clock && node.bytes == bytes) {
            node.lanes |= lane;
            return;
        }
        if (unordered_lane(me, node) < 0) {
            drop(*link);
        } else {
            link = &node.next;
        }
    }
    cell.readers = new_node({block, clock, lane, static_cast<std::uint16_t>(me.warp()), bytes, from, cell.readers});
}

void touch(Region& region, const Fiber& me, std::uintptr_t at, std::uintptr_t end, bool write, const void* from) {
    Cell* const cells = region.cells_of_launch();
    for (std::uintptr_t word = at / WORD; word * WORD < end; ++word) {
        const std::uintptr_t low = std::max(at, word * WORD), high = std::min(end, word * WORD + WORD);
        const auto bytes = static_cast<std::uint8_t>(((1u << (high - low)) - 1) << low % WORD);
        const std::size_t index = word - region.begin / WORD;
        Cell& cell = cells[index];
        if (cell.clock != 0 && (cell.bytes & bytes) != 0 && !ordered(me, cell.block, cell.thread, cell.clock)) {
            race(region, low, me, write, from, cell.block, cell.thread, true, cell.from);
        }
        if (!region.written.empty()) {
            if (write) region.written[index] |= bytes;
            if ((bytes & ~region.written[index]) != 0) {
                report({"unwritten", from, nullptr}, [&] {
                    return "read at " + line_of(from) + who(me.block->index, me.thread) +
                           ", but nothing has been written there: " + region.place(low);
                });
            }
        }
        if (!write) {
            add_reader(me, cell, bytes, from);
            continue;
        }
        while (cell.readers != 0) {
            const Readers& node = nodes[cell.readers];
            const int lane = (node.bytes & bytes) != 0 ? unordered_lane(me, node) : -1;
            if (lane >= 0) race(region, low, me, true, from, node.block, node.warp * WARP + lane, false, node.from);
            drop(cell.readers);
        }
        cell.many = false;
        cell.block = me.block->index, cell.thread = static_cast<std::uint16_t>(me.thread);
        cell.clock = clock_of(me)[me.thread], cell.bytes = bytes, cell.from = from;
    }
}

}  // namespace

void access(const void* pointer, std::size_t bytes, bool write, const void* from) {
    const Fiber* const me = running();
    if (me == nullptr || !watching) return;
    const auto at = reinterpret_cast<std::uintptr_t>(pointer);
    if ((at >= stacks_begin && at < stacks_end) || (!write && (in_program(pointer) || is_argument(pointer)))) return;
    Region* const region = reach(at);
    if (region == nullptr || (at + bytes > region->end && only_known())) {
        report({"outside", from, nullptr}, [&] {
            const std::string where = region == nullptr ? beside(at) : "across the end of " + region->place(region->begin);
            return std::string(write ? "written" : "read") + " at " + line_of(from) +
                   who(me->block->index, me->thread) + ", " + std::to_string(bytes) + " bytes: " + where;
        });
    } else {
        if (region->owner >= 0 && region->owner != static_cast<int>(me->block->index)) {
            report({"another's", from, nullptr}, [&] { return "another block's shared memory at " + line_of(from); });
        }
        if (write && region->contents == Contents::input) {
            report({"input", from, nullptr},
                   [&] { return "written at " + line_of(from) + ", an input: " + region->place(at); });
        }
        const std::uintptr_t end = std::min(at + bytes, region->end);
        touch(*region, *me, at, end, write, from);
        if (end < at + bytes) access(reinterpret_cast<const void*>(end), at + bytes - end, write, from);
    }
    if (random_order() && random_bits() % 32 == 0) preempt();
}

void misaligned(const char* file, int line, const void* at, std::size_t alignment) {
    if (running() == nullptr) return;
    const auto address = reinterpret_cast<std::uintptr_t>(at);
    const Region* region = find(address);
    report({"misaligned", file, reinterpret_cast<const void*>(static_cast<std::uintptr_t>(line))}, [&] {
        const std::string text = "misaligned at " + std::string(file) + ":" + std::to_string(line) + ", for " +
                                 std::to_string(alignment) + " bytes: " +
                                 (region == nullptr ? "memory" : region->place(address));
        std::fprintf(stderr, "%s\n", text.c_str());  // at once: the access may end the program
        return text;
    });
}

}  // namespace races

namespace observer {

using namespace races;

void launch(unsigned threads) {
    threads_of_block = threads;
    next_launch();
    nodes.assign(1, Readers());
    unused = 0;
    clear_reports();
}
void finish() { throw_reports(); }
void abandon() {}

void begin(Block& block) {
    if (!watching) return;
    auto& clock = clocks[block.slot];
    clock.assign(std::size_t(block.threads) * block.threads, 0);
    for (Fiber& fiber : block.fibers) {
        fiber.handle = &clock[std::size_t(fiber.thread) * block.threads];
        clock_of(fiber)[fiber.thread] = 1;
    }
    if (block.bytes <= hidden_bytes()) return;
    shared_of[block.slot] = add(reinterpret_cast<std::uintptr_t>(block.shared), block.bytes - hidden_bytes(),
                                "shared memory", Contents::unwritten, static_cast<int>(block.index));
}

void end(Block& block) {
    const auto found = shared_of.find(block.slot);
    if (found == shared_of.end()) return;
    remove(found->second);
    shared_of.erase(found);
}

void watch(bool on) { watching = on; }

void stacks(const void* begin, std::size_t bytes) {
    stacks_begin = reinterpret_cast<std::uintptr_t>(begin), stacks_end = stacks_begin + bytes;
}

void go(Fiber*) {}
void went(Fiber*) {}

void release(const std::vector<Fiber*>& together) {
    if (!watching) return;
    static std::vector<std::uint32_t> joined;
    joined.assign(threads_of_block, 0);
    for (Fiber* fiber : together) {
        const std::uint32_t* const clock = clock_of(*fiber);
        for (unsigned t = 0; t < threads_of_block; ++t) joined[t] = std::max(joined[t], clock[t]);
    }
    for (Fiber* fiber : together) {
        std::copy(joined.begin(), joined.end(), clock_of(*fiber));
        ++clock_of(*fiber)[fiber->thread];
    }
}

}  // namespace observer
}  // namespace emulate
