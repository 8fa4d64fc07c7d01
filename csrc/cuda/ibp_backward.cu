// The gradient of interval bound propagation through one layer. With g and h those of the lower and upper bounds, the
// centre's is g + h and the radius' h - g, and each goes back through its own product, with W and with |W|.
#include "api.h"
#include "interval.cuh"
#include "partial_sums.cuh"

namespace glsk::cuda {
namespace {

// Of the centre and radius of one output.
template <class T>
__device__ __forceinline__ void upstream_of(const IntervalGradient& gradient, std::int64_t at, T& center, T& radius) {
    const T lower = static_cast<const T*>(gradient.lower)[at], upper = static_cast<const T*>(gradient.upper)[at];
    center = lower + upper, radius = upper - lower;
}

// --- the box: a thread makes one input of two samples ---

constexpr int BOX_THREADS = 128, SAMPLES = 2;

template <class T>
__global__ void __launch_bounds__(BOX_THREADS)
    interval_box_kernel(const Interval interval, const IntervalGradient gradient, const unsigned blocks,
                        const std::int64_t first_member) {
    const Layer& layer = interval.layer;
    const std::int64_t p = first_member + blockIdx.x / blocks, inputs = layer.in_features();
    const std::int64_t item = std::int64_t(blockIdx.x % blocks) * BOX_THREADS + threadIdx.x;
    const std::int64_t sample = item / inputs * SAMPLES, input = item % inputs;
    if (sample >= interval.samples) return;
    const int area = layer.in_height * layer.in_width, taps = layer.kernel_height * layer.kernel_width;
    const int c = static_cast<int>(input / area), pixel = static_cast<int>(input % area);
    const int py = pixel / layer.in_width + layer.pad_height, px = pixel % layer.in_width + layer.pad_width;
    const T* weight = weight_of<T>(layer, p);
    const std::int64_t outputs = layer.out_features(), pair = p * interval.samples + sample;
    T center[SAMPLES] = {}, radius[SAMPLES] = {};
    for (int ky = 0; ky < layer.kernel_height; ++ky) {
        const int oy = (py - ky) / layer.stride_height;
        if (py < ky || (py - ky) % layer.stride_height != 0 || oy >= layer.out_height) continue;
        for (int kx = 0; kx < layer.kernel_width; ++kx) {
            const int ox = (px - kx) / layer.stride_width;
            if (px < kx || (px - kx) % layer.stride_width != 0 || ox >= layer.out_width) continue;
            for (int o = 0; o < layer.out_channels; ++o) {
                const std::int64_t from = std::int64_t(o) * layer.in_channels + c;
                const T w = weight[from * taps + ky * layer.kernel_width + kx];
                const std::int64_t at = (std::int64_t(o) * layer.out_height + oy) * layer.out_width + ox;
#pragma unroll
                for (int s = 0; s < SAMPLES; ++s) {
                    if (sample + s >= interval.samples) continue;
                    T mid, half;
                    upstream_of(gradient, (pair + s) * outputs + at, mid, half);
                    center[s] += w * mid, radius[s] += magnitude(w) * half;
                }
            }
        }
    }
    for (int s = 0; s < SAMPLES; ++s) {
        if (sample + s >= interval.samples) continue;
        const T l = slice<T>(interval.lower, p, sample + s)[input], u = slice<T>(interval.upper, p, sample + s)[input];
        const T leak = interval.relu ? T(interval.leak) : T(1);
        T* box = static_cast<T*>(gradient.box) + (pair + s) * 2 * inputs + input;
        box[0] = (center[s] - radius[s]) / 2 * (l < T(0) ? leak : T(1));
        box[inputs] = (center[s] + radius[s]) / 2 * (u < T(0) ? leak : T(1));
    }
}

// --- the weight: outputs' gradients times inputs, summed over samples and positions; a bias is a weight of input one ---

constexpr int TILE = 32, DEPTH = 16, EACH = 4, TILE_THREADS = TILE * TILE / (EACH * EACH), PITCH = TILE + 1;
constexpr std::int64_t BLOCKS = 512;    // thread blocks that are enough; the sum is cut for as many, not by the device
constexpr std::int64_t SHORTEST = 256;  // terms of a sum's parts

struct Product {
    std::int64_t terms, items;           // of a sum: samples times positions; weights of an output, and its bias
    int row_tiles, column_tiles, parts;  // tiles of [outputs x items]; parts of each sum

    explicit Product(const Interval& interval) {
        const Layer& layer = interval.layer;
        terms = interval.samples * layer.out_height * layer.out_width;
        items = std::int64_t(layer.in_channels) * layer.kernel_height * layer.kernel_width + 1;
        row_tiles = divide_up(layer.out_channels, TILE);
        column_tiles = static_cast<int>(divide_up<std::int64_t>(items, TILE));
        const std::int64_t tiles = interval.members * row_tiles * column_tiles;
        parts = static_cast<int>(
            std::max<std::int64_t>(1, std::min(BLOCKS / tiles, divide_up<std::int64_t>(terms, SHORTEST))));
    }
};

template <class T>
__global__ void __launch_bounds__(TILE_THREADS)
    interval_weight_kernel(const Interval interval, const IntervalGradient gradient, const Product product, T* sums,
                           const std::int64_t first_group) {
    GLSK_SHARED(memory);
    T* mids = reinterpret_cast<T*>(memory);  // [DEPTH][PITCH] upstream, by output
    T* halves = mids + DEPTH * PITCH;
    T* centers = halves + DEPTH * PITCH;  // [DEPTH][PITCH] inputs, by item
    T* radii = centers + DEPTH * PITCH;
    const Layer& layer = interval.layer;
    const unsigned tiles = product.row_tiles * product.column_tiles, tile = blockIdx.x % tiles;
    const std::int64_t group = first_group + blockIdx.x / tiles, p = group / product.parts;
    const int part = static_cast<int>(group % product.parts);
    const int out0 = static_cast<int>(tile / product.column_tiles) * TILE;
    const std::int64_t item0 = std::int64_t(tile % product.column_tiles) * TILE, weights = product.items - 1;
    const int me = threadIdx.x, row = me / (TILE / EACH), column = me % (TILE / EACH);
    const int area = layer.out_height * layer.out_width, taps = layer.kernel_height * layer.kernel_width;
    const std::int64_t share = divide_up<std::int64_t>(product.terms, product.parts);
    const std::int64_t end = min(product.terms, (part + 1) * share);
    T center[EACH][EACH] = {}, radius[EACH][EACH] = {};
    for (std::int64_t base = part * share; base < end; base += DEPTH) {
        __syncthreads();
        for (int i = me; i < TILE * DEPTH; i += TILE_THREADS) {
            const std::int64_t term = base + i % DEPTH, b = term / area, item = item0 + i / DEPTH;
            const int position = static_cast<int>(term % area), out = out0 + i / DEPTH,
                      at = i % DEPTH * PITCH + i / DEPTH;
            T mid = T(0), half = T(0), c = T(0), r = T(0);
            if (term < end && out < layer.out_channels) {
                const std::int64_t pair = p * interval.samples + b;
                upstream_of(gradient, pair * layer.out_features() + std::int64_t(out) * area + position, mid, half);
            }
            if (term < end && item == weights) c = T(1);
            if (term < end && item < weights) {
                const int tap = static_cast<int>(item % taps);
                const int y =
                    position / layer.out_width * layer.stride_height - layer.pad_height + tap / layer.kernel_width;
                const int x =
                    position % layer.out_width * layer.stride_width - layer.pad_width + tap % layer.kernel_width;
                if (y >= 0 && y < layer.in_height && x >= 0 && x < layer.in_width) {
                    read_box<T>(interval, p, b, (item / taps * layer.in_height + y) * layer.in_width + x, c, r);
                }
            }
            mids[at] = mid, halves[at] = half, centers[at] = c, radii[at] = r;
        }
        __syncthreads();
        for (int d = 0; d < DEPTH; ++d) {
#pragma unroll
            for (int i = 0; i < EACH; ++i) {
                const T mid = mids[d * PITCH + row + i * (TILE / EACH)],
                        half = halves[d * PITCH + row + i * (TILE / EACH)];
#pragma unroll
                for (int j = 0; j < EACH; ++j) {
                    center[i][j] += mid * centers[d * PITCH + column + j * (TILE / EACH)];
                    radius[i][j] += half * radii[d * PITCH + column + j * (TILE / EACH)];
                }
            }
        }
    }
    T* to = sums + group * product.items * layer.out_channels;
    const T* weight = weight_of<T>(layer, p);
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
#pragma unroll
        for (int j = 0; j < EACH; ++j) {
            const int out = out0 + row + i * (TILE / EACH);
            const std::int64_t item = item0 + column + j * (TILE / EACH);
            if (out >= layer.out_channels || item > weights) continue;
            if (item == weights) {
                to[weights * layer.out_channels + out] = center[i][j];
                continue;
            }
            const T w = weight[out * weights + item];
            to[out * weights + item] = center[i][j] + (w > T(0) ? radius[i][j] : w < T(0) ? -radius[i][j] : T(0));
        }
    }
}

template <class T>
void run(const Interval& interval, const IntervalGradient& gradient, void* stream, const Allocate& allocate) {
    const Layer& layer = interval.layer;
    if (gradient.box != nullptr) {
        const std::int64_t items = divide_up<std::int64_t>(interval.samples, SAMPLES) * layer.in_features();
        const std::int64_t blocks = divide_up<std::int64_t>(items, BOX_THREADS);
        if (blocks > 0x7fffffff) throw std::invalid_argument("ibp_affine: too many samples for one call");
        launch_pairs("the gradient of a box", interval_box_kernel<T>, interval.members, blocks, BOX_THREADS, 0, stream,
                     interval, gradient, static_cast<unsigned>(blocks));
    }
    if (gradient.parameters == nullptr) return;
    const Product product(interval);
    const std::int64_t size = product.items * layer.out_channels, groups = interval.members * product.parts;
    T* to = static_cast<T*>(gradient.parameters);
    T* sums = product.parts == 1 ? to : static_cast<T*>(allocate(groups * size * sizeof(T)));
    launch_pairs("the gradient of a weight by intervals", interval_weight_kernel<T>, groups,
                 std::int64_t(product.row_tiles) * product.column_tiles, TILE_THREADS, 4 * DEPTH * PITCH * sizeof(T),
                 stream, interval, gradient, product, sums);
    if (product.parts > 1) {
        sum_parts(static_cast<const T*>(sums), to, interval.members, size, size, product.parts, stream);
    }
}

}  // namespace

void run_ibp_backward(const Interval& interval, const IntervalGradient& gradient, bool is_double, void* stream,
                      const Allocate& allocate) {
    if (is_double) {
        run<double>(interval, gradient, stream, allocate);
    } else {
        run<float>(interval, gradient, stream, allocate);
    }
}

}  // namespace glsk::cuda
