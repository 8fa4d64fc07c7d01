// The memory that the race detector knows: every block's shared memory, the buffers of a call, or else pages.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "emulate_blocks.h"

namespace emulate::races {

constexpr std::uintptr_t WORD = 4;

struct Cell {  // four bytes: who wrote them last, and who has read them since
    std::uint32_t block = 0, clock = 0, readers = 0;
    std::uint16_t thread = 0;
    std::uint8_t bytes = 0;
    bool many = false;  // blocks have read it: two of them are kept
    const void* from = nullptr;
};

struct Region {
    std::uintptr_t begin, end;
    std::string name;
    Contents contents;
    int owner;                          // the block whose shared memory it is, or -1
    std::vector<Cell> cells;            // by cells_of_launch()
    std::vector<std::uint8_t> written;  // bytes of a cell; empty: all
    std::uint32_t launch;

    Region(std::uintptr_t begin, std::uintptr_t end, std::string name, Contents contents, int owner);
    Cell* cells_of_launch();  // untouched when a launch begins
    std::string place(std::uintptr_t at) const;
};

Region* add(std::uintptr_t begin, std::size_t bytes, const std::string& name, Contents contents, int owner);
void remove(Region* region);
void next_launch();
Region* find(std::uintptr_t at);    // null: there is none
Region* reach(std::uintptr_t at);   // a page, too, where no memory is known
bool only_known();                  // whether an access to other memory is an error
std::string beside(std::uintptr_t at);  // which regions an address is beside

}  // namespace emulate::races
