// The gradient of a pass of any chain, with no tape: a group of lanes walks down as in the general pass, and its
// coefficients of every layer stay in the thread block's workspace; then up again (general_rise.cuh), giving each operand
// its part (general_gradient.cuh).
//
// Where all of a group's coefficients fit into shared memory, the workspace lies there: for rows of C, four of them, and
// for rows of a convolution, up to sixteen of one position, which share a window of every layer. CNN3's passes and CNN5's
// first are such. Else it lies in global memory, from where it should stay in the L2 cache, and a group is any 32 lanes.
//
// A thread block keeps to one member, and takes every nth sample of it: what it adds up for the member's parameters
// another kernel adds up over the blocks in order. What belongs to one (member, sample) it adds up in place. So the same
// call gives the same bits. Rows whose upstream gradient is zero are not visited.
#include "general_backward.cuh"
#include "partial_sums.cuh"

namespace glsk::cuda {
namespace {

constexpr int CHUNK = 256;                     // rows that are looked through at a time
constexpr std::int64_t BLOCKS = 512;           // thread blocks at most, so that sums do not depend on the device
constexpr std::int64_t WORKSPACE = 256 << 20;  // bytes; more only if one thread block needs more
constexpr int GLOBAL_LANES = 32;

// Where a thread block's parts of its workspace begin, in elements, for groups of some lanes.
struct Layout {
    int lanes;
    bool on_chip, sums_on_chip;
    std::int64_t to, saved, coefficients, sums;  // coefficients: where they end, and the sums for the parameters begin

    Layout(const Pass& pass, int lanes, bool on_chip) : lanes(lanes), on_chip(on_chip) {
        const Extent extent(pass, on_chip);
        to = extent.widest * lanes;  // two of coefficients, or of values
        saved = 2 * to;
        coefficients = saved + extent.all * lanes;
        sums = divide_up<std::int64_t>(Parameters(pass, pass.layers - 1).end, 32) * 32;
        sums_on_chip = on_chip && pass.C.data == nullptr;  // a row of C touches every weight, and once
    }

    // Of a thread block: elements in global and, of its workspace, in shared memory.
    GLSK_ANYWHERE std::int64_t global() const { return on_chip ? sums : coefficients + sums; }
    GLSK_ANYWHERE std::int64_t chip() const { return on_chip ? coefficients + (sums_on_chip ? sums : 0) : 0; }

    template <class T>
    std::size_t shared_bytes(const Pass& pass) const {
        const int parts = lanes == 4 ? WeightTile<T, 4>::SHARED : WeightTile<T, 16>::SHARED;
        const std::size_t values = lanes + parts + chip();
        return divide_up<std::size_t>(values * sizeof(T), 16) * 16 + pass.layers * sizeof(Window) +
               lanes * sizeof(Source) + (2 * CHUNK + THREADS + 1) * sizeof(int);
    }
};

// The best layout that the device has room for.
template <class T>
Layout layout_of(const Pass& pass) {
    const Layout on_chip(pass, pass.C.data == nullptr ? 16 : 4, true);
    const bool fits = std::int64_t(on_chip.shared_bytes<T>(pass)) <= attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
    return fits && !lines_per_row(pass) ? on_chip : Layout(pass, GLOBAL_LANES, false);
}

// The upstream gradient of an entry of the visiting order: twice the row's place, and 1 for an upper bound.
template <class T>
__device__ __forceinline__ T upstream_of(const Pass& pass, const PassGradient& gradient, std::int64_t pair, int first,
                                         int word) {
    const void* from = word % 2 == 0 ? gradient.lower : gradient.upper;
    if (from == nullptr) return T(0);
    return static_cast<const T*>(from)[pair * pass.rows + row_at(pass, first + word / 2)];
}

// How many of the words are a group: on chip, those of one position of the outputs.
template <int LANES, bool ON_CHIP>
__device__ __forceinline__ int group_size(const Pass& pass, int first, const int* words, int found) {
    const int most = min(LANES, found), channels = pass.layer[pass.layers - 1].out_channels;
    if (!ON_CHIP || pass.C.data != nullptr) return most;
    const int position = (first + words[0] / 2) / channels;
    int size = 1;
    while (size < most && (first + words[size] / 2) / channels == position) ++size;
    return size;
}

template <class T, bool PER_ROW, int LANES, bool ON_CHIP>
__global__ void __launch_bounds__(THREADS, 2)
    general_backward_kernel(const Pass pass, const PassGradient gradient, const Layout layout, const int per_member,
                            const std::int64_t first_member) {
    GLSK_SHARED(memory);
    T* chip = reinterpret_cast<T*>(memory);
    T* const global = static_cast<T*>(pass.workspace) + layout.global() * blockIdx.x;
    T* const base = ON_CHIP ? chip : global;
    T* const sums = !ON_CHIP || layout.sums_on_chip ? base + layout.coefficients : global;
    const Workspace<T> own = {base, base + layout.to, base + layout.saved, sums};
    chip += layout.chip();
    constexpr int PARTS = WeightTile<T, LANES>::SHARED;
    Shared<T> shared = {chip + PARTS, chip, nullptr, nullptr};
    chip += PARTS + LANES;
    const std::size_t values = divide_up<std::size_t>(reinterpret_cast<unsigned char*>(chip) - memory, 16) * 16;
    shared.sources = reinterpret_cast<Source*>(memory + values);
    shared.windows = reinterpret_cast<Window*>(shared.sources + LANES);
    int* list = reinterpret_cast<int*>(shared.windows + pass.layers);
    int* counts = list + 2 * CHUNK;
    const std::int64_t p = first_member + blockIdx.x / per_member;
    for (std::int64_t i = threadIdx.x; i < layout.sums; i += THREADS) sums[i] = T(0);
    for (std::int64_t b = blockIdx.x % per_member; b < pass.samples; b += per_member) {
        const std::int64_t pair = p * pass.samples + b;
        for (int first = 0; first < pass.rows; first += CHUNK) {
            compact(
                2 * min(CHUNK, pass.rows - first),
                [&](int word) { return upstream_of<T>(pass, gradient, pair, first, word) != T(0); }, list, counts);
            const int found = counts[THREADS];
            for (int i = 0, size = 0; i < found; i += size) {
                size = group_size<LANES, ON_CHIP>(pass, first, list + i, found - i);
                const BackwardGroup<LANES> group = {p, b, size, first, list + i};
                if (threadIdx.x < LANES) {
                    const int lane = threadIdx.x;
                    T each = T(0);
                    if (lane < size) each = upstream_of<T>(pass, gradient, pair, first, group.words[lane]);
                    shared.upstream[lane] = lane < size && group.negated(pass, lane) ? -each : each;
                    if (pass.C.data == nullptr && lane < size) {
                        shared.sources[lane] = Source(pass.layer[pass.layers - 1], group.row(pass, lane));
                    }
                }
                back_propagate<T, PER_ROW>(pass, gradient, group, shared, own);
            }
        }
    }
    if (!layout.sums_on_chip || gradient.parameters == nullptr) return;
    for (std::int64_t i = threadIdx.x; i < layout.sums; i += THREADS) global[i] = sums[i];
}

template <class T>
using Kernel = void (*)(const Pass, const PassGradient, const Layout, const int, const std::int64_t);

template <class T>
Kernel<T> kernel_of(const Pass& pass, const Layout& layout) {
    if (!layout.on_chip) {
        return lines_per_row(pass) ? general_backward_kernel<T, true, GLOBAL_LANES, false>
                                   : general_backward_kernel<T, false, GLOBAL_LANES, false>;
    }
    return layout.lanes == 4 ? general_backward_kernel<T, false, 4, true> : general_backward_kernel<T, false, 16, true>;
}

// How many thread blocks there are room for.
std::int64_t room(const Layout& layout, std::size_t size) {
    return std::max<std::int64_t>(1,
                                  std::min<std::int64_t>(BLOCKS, WORKSPACE / (layout.global() * std::int64_t(size))));
}

template <class T>
void run(Pass pass, const PassGradient& gradient, void* stream, const Allocate& allocate) {
    const Layout layout = layout_of<T>(pass);
    const std::int64_t most = room(layout, sizeof(T)), pitch = layout.global();
    const int per_member = static_cast<int>(std::min(pass.samples, std::max<std::int64_t>(1, most / pass.members)));
    const std::int64_t at_once = std::min(pass.members, std::max<std::int64_t>(1, most / per_member));
    pass.workspace = allocate(at_once * per_member * pitch * sizeof(T));
    const std::int64_t size = Parameters(pass, pass.layers - 1).end;
    const std::int64_t sums = layout.on_chip ? 0 : layout.coefficients;
    for (std::int64_t p = 0; p < pass.members; p += at_once) {
        const std::int64_t members = std::min(at_once, pass.members - p);
        launch("the gradient of a pass", kernel_of<T>(pass, layout), static_cast<unsigned>(members * per_member),
               THREADS, layout.shared_bytes<T>(pass), stream, pass, gradient, layout, per_member, p);
        if (gradient.parameters == nullptr) continue;
        sum_parts(static_cast<const T*>(pass.workspace) + sums, static_cast<T*>(gradient.parameters) + p * size,
                  members, size, pitch, per_member, stream);
    }
}

}  // namespace

void run_pass_backward(const Pass& pass, const PassGradient& gradient, bool is_double, void* stream,
                       const Allocate& allocate) {
    if (is_double) {
        run<double>(pass, gradient, stream, allocate);
    } else {
        run<float>(pass, gradient, stream, allocate);
    }
}

std::size_t backward_block_bytes(const Pass& pass, bool is_double) {
    return is_double ? layout_of<double>(pass).global() * sizeof(double)
                     : layout_of<float>(pass).global() * sizeof(float);
}

std::int64_t backward_blocks(const Pass& pass, bool is_double) {
    return is_double ? room(layout_of<double>(pass), sizeof(double)) : room(layout_of<float>(pass), sizeof(float));
}

}  // namespace glsk::cuda
