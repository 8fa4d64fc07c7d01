#include "emulate_regions.h"

#include <algorithm>
#include <map>
#include <memory>

namespace emulate {
namespace races {
namespace {

constexpr std::uintptr_t PAGE = 4096;
constexpr std::size_t MOST_PAGES = 2048;

std::uint32_t launches = 0;
bool others_are_errors = false;
std::map<std::uintptr_t, std::unique_ptr<Region>> regions;  // by their end
Region* recent = nullptr;

}  // namespace

Region::Region(std::uintptr_t begin, std::uintptr_t end, std::string name, Contents contents, int owner)
    : begin(begin), end(end), name(std::move(name)), contents(contents), owner(owner),
      cells((end + WORD - 1) / WORD - begin / WORD), launch(launches) {
    if (contents == Contents::unwritten) written.resize(cells.size());
}

Cell* Region::cells_of_launch() {
    if (launch != launches) {
        std::fill(cells.begin(), cells.end(), Cell());
        launch = launches;
    }
    return cells.data();
}

std::string Region::place(std::uintptr_t at) const {
    return name + (owner < 0 ? "" : " of block " + std::to_string(owner)) + " + " + std::to_string(at - begin);
}

Region* add(std::uintptr_t begin, std::size_t bytes, const std::string& name, Contents contents, int owner) {
    auto region = std::make_unique<Region>(begin, begin + bytes, name, contents, owner);
    return (regions[begin + bytes] = std::move(region)).get();
}

void remove(Region* region) {
    if (recent == region) recent = nullptr;
    regions.erase(region->end);
}

void next_launch() {
    ++launches;
    if (!others_are_errors && regions.size() > MOST_PAGES) regions.clear(), recent = nullptr;
}

Region* find(std::uintptr_t at) {
    const auto found = regions.upper_bound(at);
    return found != regions.end() && found->second->begin <= at ? found->second.get() : nullptr;
}

Region* reach(std::uintptr_t at) {
    if (recent != nullptr && at >= recent->begin && at < recent->end) return recent;
    Region* region = find(at);
    if (region == nullptr && !others_are_errors) region = add(at / PAGE * PAGE, PAGE, "memory", Contents::given, -1);
    if (region != nullptr) recent = region;
    return region;
}

bool only_known() { return others_are_errors; }

std::string beside(std::uintptr_t at) {
    const auto next = regions.upper_bound(at);
    if (next != regions.begin()) {
        const Region& region = *std::prev(next)->second;
        const std::uintptr_t past = at - region.end;
        if (past < PAGE) return std::to_string(past) + " bytes past the end of " + region.place(region.begin);
    }
    if (next != regions.end() && next->second->begin - at < PAGE) {
        const Region& region = *next->second;
        return std::to_string(region.begin - at) + " bytes before " + region.place(region.begin);
    }
    return "nowhere near any memory of the launch";
}

}  // namespace races

void observer::know(const void* begin, std::size_t bytes, const std::string& name, Contents contents) {
    if (bytes == 0) return;
    races::add(reinterpret_cast<std::uintptr_t>(begin), bytes, name, contents, -1);
    races::others_are_errors = true;
}

void observer::forget() { races::regions.clear(), races::recent = nullptr, races::others_are_errors = false; }

}  // namespace emulate
