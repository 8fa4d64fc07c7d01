// The pass of deep convolutional chains on tensor cores: the FC pass of CNN5, and the convolution's pass above.
//
// The rows are cut into tiles of 16 one-sided rows, one a warp. A warp carries its tile from the rows' own weights down
// to the image, level by level, making a row of pixels of a level only when the level below needs it; two rows a level
// are kept, in shared memory, already as operands in the layout in which tensor cores read them. A product is three of
// bfloat16, as good as float to about 2^-17 of the sum of the terms' magnitudes, or one of FP16, to about 2^-11 of it
// (deep_products.cuh). The accumulators of one product, after the ReLU, are the operand of the next: the same lane
// holds the same coefficients in both, so that nothing but sums over image rows ever crosses lanes.
//
// A thread block stays and takes one (member, sample) after another: consecutive ones share a member, whose weights it
// then has in shared memory already. A level's relaxation, and the box, are prepared once a (member, sample).
#include "deep_image.cuh"
#include "deep_rows.cuh"
#include "deep_tables.cuh"
#include "deep_transpose.cuh"
#include "kernels.h"
#include "rows.cuh"

namespace glsk::cuda {
namespace deep {
namespace {

constexpr std::int64_t SMALL = 255;       // of sizes of images, so that a byte counts the rows of a level
constexpr std::int64_t FEWEST_ROWS = 64;  // one-sided: with fewer, or with fewer warps, too much of a device is idle
constexpr int FEWEST_WARPS = 3;
constexpr std::int64_t WORKSPACE = 256 << 20;  // bytes; more only if one thread block needs more

// How many rows of each level from 1 up have been made, one byte a level.
struct Made {
    unsigned rows = 0;

    __device__ __forceinline__ int operator[](int level) const { return rows >> 8 * (level - 1) & 255; }
    __device__ __forceinline__ void set(int level, int row) { rows |= unsigned(row) << 8 * (level - 1); }
    __device__ __forceinline__ void next(int level) { rows += 1u << 8 * (level - 1); }

    // The level whose next row has to be made before row y of the level below the given one can be; none: one below.
    __device__ __forceinline__ int missing(const Pass& pass, const Shape& shape, const Tile& tile, int y,
                                           int level) const {
        for (;; ++level) {
            const int last = tile.window(shape, level).y1 - 1;
            const int needed = min((y + pass.layer[level].pad_height) / STRIDE, last);
            y = (*this)[level];
            if (y > needed) return level - 1;
            if (level == shape.top) return level;
        }
    }
    // The level to go on with until all rows are made, 0: none. A row that only reads padding is needed by no level
    // below, but it has a constant.
    __device__ __forceinline__ int unfinished(const Pass& pass, const Shape& shape, const Tile& tile) const {
        constexpr int BEYOND = 1 << 20;
        for (int level = 1; level <= shape.top; ++level) {
            if ((*this)[level] < tile.window(shape, level).y1) return missing(pass, shape, tile, BEYOND, level);
        }
        return 0;
    }
};

template <int CHANNELS, bool ONE_GROUP, class Product>
__device__ __forceinline__ void back_substitute(const Pass& pass, const Shape& shape, const Tile& tile,
                                                const unsigned char* memory) {
    Sums sums = {{0.f, 0.f}};
    find_windows(pass, shape, tile);
    Made made;
    for (int k = 1; k <= shape.top; ++k) made.set(k, tile.window(shape, k).y0);
    const auto ring = [&](int k) { return reinterpret_cast<uint4*>(tile.memory + shape.level[k].ring); };
    const Window window = tile.window(shape, 0);
    Image<CHANNELS, Product> image(pass, shape, tile, memory, sums);
    image.clear(window);
    for (int y = window.y0;; ++y) {
        const bool last = y >= window.y1;
        while (const int level = last ? made.unfinished(pass, shape, tile) : made.missing(pass, shape, tile, y, 1)) {
            const int row = made[level];
            made.next(level);
            if (level == shape.top) {
                if (shape.spilled) {
                    seed_row<Product>(pass, shape, tile, row, tile.spill, sums);
                } else {
                    seed_row<Product>(pass, shape, tile, row, ring(level), sums);
                }
            } else if (shape.spilled && level + 1 == shape.top) {
                middle_row<Product>(pass, shape, tile, memory, level + 1, row, tile.spill, sums);
            } else {
                middle_row<Product>(pass, shape, tile, memory, level + 1, row, ring(level + 1), sums);
            }
        }
        if (last) break;
        image.begin_row(y, window.x0);
        transposed_row<Product, ONE_GROUP>(
            pass, shape, tile, memory, 1, 0, y, ring(1), [&](int x) { return image.load(x); },
            [&](int x, float (&a)[2][4], const auto& entries) { image.pixel(x, a, entries); });
        image.end_row(window.x1);
    }
    image.end(window);
    write_bounds<Product>(pass, tile, sums);
}

template <int CHANNELS, bool ONE_GROUP, class Product>
__global__ void __launch_bounds__(MAX_WARPS* LANES, 1) deep_kernel(const Pass pass, const Shape shape) {
    GLSK_SHARED(memory);
    int* list = reinterpret_cast<int*>(memory + shape.list);
    int* counts = reinterpret_cast<int*>(memory + shape.counts);
    const int warp = threadIdx.x / LANES, warps = blockDim.x / LANES;
    uint4* const words = static_cast<uint4*>(pass.workspace) + pass.workspace_per_block * blockIdx.x;
    float4* const tables = reinterpret_cast<float4*>(words);
    Scales& scales = *reinterpret_cast<Scales*>(memory + shape.scales);
    float* const scratch = reinterpret_cast<float*>(counts);
    float* const most_of_last = reinterpret_cast<float*>(words + shape.last);
    const std::int64_t jobs = pass.members * pass.samples * shape.chunks;
    const std::int64_t end = jobs * (blockIdx.x + 1) / gridDim.x;
    std::int64_t prepared = -1;
    for (std::int64_t job = jobs * blockIdx.x / gridDim.x; job < end; ++job) {
        const std::int64_t pair = job / shape.chunks, p = pair / pass.samples, b = pair % pass.samples;
        const int first = static_cast<int>(job % shape.chunks) * shape.chunk;
        unstable_rows<float>(pass, p, b, first, min(shape.chunk, pass.rows - first), list, counts);
        const int unstable = counts[blockDim.x];
        if (unstable == 0) continue;
        for (int i = threadIdx.x; i < unstable; i += blockDim.x) list[i] = row_at(pass, first + list[i]);
        if (prepared != p) {
            if (Product::SCALED) find_scales(pass, shape, p, scales, scratch, most_of_last);
            prepare_weights<Product>(pass, shape, p, memory, scales);
        }
        prepared = p;
        prepare_tables<Product>(pass, shape, p, b, tables, scales, scratch);
        __syncthreads();
        const int most = ROWS / pass.signs;
        for (int i = warp * most; i < unstable; i += warps * most) {
            const Tile tile = {p,
                               b,
                               tables,
                               memory + shape.own + warp * shape.own_bytes,
                               words + shape.table_words + warp * shape.spill_words,
                               list + i,
                               min(most, unstable - i),
                               static_cast<int>(threadIdx.x) % LANES,
                               &scales,
                               most_of_last};
            back_substitute<CHANNELS, ONE_GROUP, Product>(pass, shape, tile, memory);
        }
    }
}

// Whether a convolution is one that the kernel has code for, smaller kernels being filled up.
bool is_strided(const Layer& layer, int kernel) {
    return layer.stride_height == STRIDE && layer.stride_width == STRIDE && layer.kernel_height <= kernel &&
           layer.kernel_width <= kernel;
}

bool is_small(const Layer& layer) {
    return std::max({layer.in_channels, layer.out_channels, layer.in_height, layer.in_width, layer.out_height,
                     layer.out_width, layer.pad_height, layer.pad_width}) <= SMALL;
}

bool has_the_form(const Pass& pass) {
    const int top = pass.layers - 2;
    if (top < 1 || top >= MAX_LEVELS || pass.rows >= 1 << 30 || pass.rule == Rule::parallel) return false;
    for (int k = 0; k <= top; ++k) {
        const Layer& layer = pass.layer[k];
        // A lower line is made from the upper one: of a plain ReLU with lines by DeepPoly's rule or a mask.
        if (layer.relu && (layer.leak != 0 || layer.around.are_lines())) return false;
        if (!is_small(layer) || !is_strided(layer, k == 0 ? FIRST_KERNEL : KERNEL)) return false;
        const Layer& below = pass.layer[std::max(k - 1, 0)];
        if (k > 0 && (layer.in_channels != below.out_channels || layer.in_height != below.out_height ||
                      layer.in_width != below.out_width)) {
            return false;
        }
    }
    if (pass.layer[0].in_channels > 3 || pass.layer[0].out_channels > GROUP) return false;
    const Layer& last = pass.layer[top + 1];
    const Layer& below = pass.layer[top];
    if (last.is_linear()) return last.in_features() == below.out_features();
    return pass.C.data == nullptr && last.in_channels == below.out_channels && last.in_height == below.out_height &&
           last.in_width == below.out_width;
}

// A job has every row of a (member, sample), unless that leaves multiprocessors idle.
int rows_of_a_job(const Pass& pass, int warps) {
    const std::int64_t pairs = pass.members * pass.samples, most = ROWS / pass.signs;
    const std::int64_t wanted = divide_up<std::int64_t>(attribute(cudaDevAttrMultiProcessorCount), pairs);
    const std::int64_t share = std::max(divide_up<std::int64_t>(pass.rows, wanted), warps * most);
    return static_cast<int>(std::min<std::int64_t>({pass.rows, MAX_CHUNK, share}));
}

// Calls serve with where everything is: as many warps as there is shared memory for, and the top level's ring in
// global memory only where that makes room for more warps. False if there is none.
template <class Serve>
bool with_shape(const Pass& pass, Serve serve) {
    if (!has_the_form(pass)) return false;
    const unsigned limit = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
    const int words = pass.products == Products::fp16 ? Fp16::WORDS : Bf16x3::WORDS;
    for (int warps = MAX_WARPS; warps >= 1; --warps) {
        for (int spill = 0; spill <= (pass.layers > 3); ++spill) {
            const Shape shape(pass, words, warps, spill != 0, rows_of_a_job(pass, warps));
            if (shape.total <= limit) return serve(shape), true;
        }
    }
    return false;
}

// How many thread blocks there are, and the words of workspace of each.
struct Blocks {
    std::int64_t count, words;

    Blocks(const Pass& pass, const Shape& shape)
        : words(shape.table_words + shape.warps * std::int64_t(shape.spill_words)) {
        const std::int64_t jobs = pass.members * pass.samples * shape.chunks;
        const std::int64_t slots = attribute(cudaDevAttrMultiProcessorCount);
        const std::int64_t room = std::max<std::int64_t>(1, WORKSPACE / (words * std::int64_t(sizeof(uint4))));
        count = std::min({jobs, slots, room});
    }
    std::size_t bytes() const { return static_cast<std::size_t>(count * words) * sizeof(uint4); }
};

template <class Product>
auto kernel_for(const Pass& pass, const Shape& shape) {
    const bool one_channel = pass.layer[0].in_channels == 1, one_group = shape.level[1].groups == 1;
    return one_channel ? (one_group ? deep_kernel<1, true, Product> : deep_kernel<1, false, Product>)
                       : (one_group ? deep_kernel<3, true, Product> : deep_kernel<3, false, Product>);
}

template <class Kernel>
void launch_deep(Pass pass, const Shape& shape, Kernel kernel, void* stream, const Allocate& allocate) {
    const Blocks blocks(pass, shape);
    pass.workspace_per_block = blocks.words;
    pass.workspace = allocate(blocks.bytes());
    const unsigned grid = static_cast<unsigned>(blocks.count);
    launch("the deep kernel", kernel, grid, shape.warps * LANES, shape.total, stream, pass, shape);
}

}  // namespace
}  // namespace deep

bool fits_deep(const Pass& pass) {
    return deep::with_shape(pass, [](const deep::Shape&) {});
}

bool prefers_deep(const Pass& pass) {
    int warps = 0;
    return deep::with_shape(pass, [&](const deep::Shape& shape) { warps = shape.warps; }) &&
           warps >= deep::FEWEST_WARPS && std::int64_t(pass.rows) * pass.signs >= deep::FEWEST_ROWS;
}

std::size_t deep_workspace(const Pass& pass) {
    std::size_t bytes = 0;
    deep::with_shape(pass, [&](const deep::Shape& shape) { bytes = deep::Blocks(pass, shape).bytes(); });
    return bytes;
}

void run_deep(Pass pass, void* stream, const Allocate& allocate) {
    deep::with_shape(pass, [&](const deep::Shape& shape) {
        const bool fp16 = pass.products == Products::fp16;
        const auto kernel =
            fp16 ? deep::kernel_for<deep::Fp16>(pass, shape) : deep::kernel_for<deep::Bf16x3>(pass, shape);
        deep::launch_deep(pass, shape, kernel, stream, allocate);
    });
}

}  // namespace glsk::cuda
