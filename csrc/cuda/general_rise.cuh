// The way up again: a lane's own linear network at the corner of the box that its coefficients pick, and what its
// gradient takes from it. A row's bound is that network's value there, so the gradient of a weight is the product of
// the coefficient above it and the value below it.
#pragma once

#include "general_walk.cuh"

namespace glsk::cuda {

// Where the gradients of a layer's weight and bias lie among those of all layers.
struct Parameters {
    std::int64_t weight, bias, end;

    GLSK_ANYWHERE Parameters(const Pass& pass, int layer) : weight(0), bias(0), end(0) {
        for (int k = 0; k <= layer; ++k) {
            const Layer& at = pass.layer[k];
            weight = end;
            bias = weight + std::int64_t(at.out_channels) * at.in_channels * at.kernel_height * at.kernel_width;
            end = bias + at.out_channels;
        }
    }
};

// Outputs of the layers before this one.
GLSK_ANYWHERE inline std::int64_t units_before(const Pass& pass, int layer) {
    std::int64_t units = 0;
    for (int k = 0; k < layer; ++k) units += pass.layer[k].out_features();
    return units;
}

// Values of layer k's inputs (in window in) to those of its outputs (in window out), CHANNELS of them at a time.
template <class T, int CHANNELS, class Group>
__device__ void rise(const Pass& pass, const Group& group, int k, const Window& in, const Window& out, const T* from,
                     T* to) {
    constexpr int LANES = Group::LANES, WORKERS = WORKERS_OF<LANES>;
    const Layer& layer = pass.layer[k];
    const T* weight = weight_of<T>(layer, group.p);
    const int quad = quad_of_thread<LANES>(), taps = layer.kernel_height * layer.kernel_width;
    const std::int64_t next_out = std::int64_t(layer.in_channels) * taps;
    const std::int64_t blocks = divide_up(layer.out_channels, CHANNELS);
    for (std::int64_t item = worker_of_thread<LANES>(); item < blocks * out.area(); item += WORKERS) {
        const int first = static_cast<int>(item / out.area()) * CHANNELS, pixel = static_cast<int>(item % out.area());
        const int channels = min(CHANNELS, layer.out_channels - first);
        const int y0 = (out.y0 + pixel / out.width()) * layer.stride_height - layer.pad_height;
        const int x0 = (out.x0 + pixel % out.width()) * layer.stride_width - layer.pad_width;
        T sum[CHANNELS][QUAD] = {};
        for (int c = 0; c < layer.in_channels; ++c) {
            for (int ky = 0; ky < layer.kernel_height; ++ky) {
                if (y0 + ky < 0 || y0 + ky >= layer.in_height) continue;
                for (int kx = 0; kx < layer.kernel_width; ++kx) {
                    if (x0 + kx < 0 || x0 + kx >= layer.in_width) continue;
                    const std::int64_t at =
                        (std::int64_t(c) * in.height() + y0 + ky - in.y0) * in.width() + x0 + kx - in.x0;
                    const Lanes<T> four = lanes_at<LANES>(from, at, quad);
                    const T* w = weight + first * next_out + std::int64_t(c) * taps + ky * layer.kernel_width + kx;
#pragma unroll
                    for (int i = 0; i < CHANNELS; ++i) {
                        const T tap = i < channels ? w[i * next_out] : T(0);
#pragma unroll
                        for (int v = 0; v < QUAD; ++v) sum[i][v] += four.at[v] * tap;
                    }
                }
            }
        }
#pragma unroll
        for (int i = 0; i < CHANNELS; ++i) {
            if (i >= channels) continue;
            const T bias = bias_of<T>(layer, group.p, first + i);
            Lanes<T> value;
#pragma unroll
            for (int v = 0; v < QUAD; ++v) value.at[v] = sum[i][v] + bias;
            lanes_at<LANES>(to, std::int64_t(first + i) * out.area() + pixel, quad) = value;
        }
    }
}

// Sums over the lanes of one unit, of which each of some neighbouring threads has four. The whole warp calls it.
template <int LANES, class T>
__device__ __forceinline__ T over_quads(T value) {
#pragma unroll
    for (int mask = 1; mask < LANES / QUAD; mask *= 2) value += __shfl_xor_sync(0xffffffffu, value, mask);
    return value;
}

// A tile of a layer's weights: ROWS outputs by COLUMNS of the weights of an output, with its bias after the last of them.
// For groups of four lanes it is narrow: two thread blocks' shared memory then fits a multiprocessor.
template <class T, int LANES>
struct WeightTile {
    static constexpr int ROWS = 8, COLUMNS = sizeof(T) == 8 ? 2 : LANES == 4 ? 3 : 6, VALUES = ROWS * COLUMNS;
    static constexpr int PITCH = THREADS + 1, SHARED = VALUES * PITCH;

    T sum[ROWS][COLUMNS];

    __device__ __forceinline__ void share(T* shared) const {
#pragma unroll
        for (int i = 0; i < VALUES; ++i) shared[i * PITCH + threadIdx.x] = sum[i / COLUMNS][i % COLUMNS];
    }
};

// How many of the workers sum up one tile together, each its own pixels: a power of two, for which the instructions of
// a thread are fewest.
template <class T, int LANES>
__device__ __forceinline__ int workers_of_a_tile(std::int64_t tiles, int area) {
    constexpr int VALUES = WeightTile<T, LANES>::VALUES, QUADS = LANES / QUAD, WORKERS = WORKERS_OF<LANES>;
    std::int64_t least = 0;
    int best = 0;
    for (int share = 1; share <= WORKERS; share *= 2) {
        const std::int64_t rounds = divide_up<std::int64_t>(tiles, WORKERS / share);
        const int sums = divide_up(VALUES, share * QUADS) * share * QUADS;
        const std::int64_t cost = rounds * (divide_up(area, share) * VALUES * QUAD + VALUES + sums);
        if (best == 0 || cost < least) best = share, least = cost;
    }
    return best;
}

// Adds the lanes' products of layer k's coefficients (of its outputs, in window out, with the upstream gradient) and
// values (of its inputs, in window in) to the gradient of its weight; the bias is a weight whose input is one.
template <class T, int LANES>
__device__ void add_products(const Pass& pass, int k, const Window& in, const Window& out, const T* coefficients,
                             const T* values, T* gradient, T* shared) {
    using Tile = WeightTile<T, LANES>;
    constexpr int ROWS = Tile::ROWS, COLUMNS = Tile::COLUMNS, WORKERS = WORKERS_OF<LANES>;
    const Layer& layer = pass.layer[k];
    const Parameters parameters(pass, k);
    const int taps = layer.kernel_height * layer.kernel_width, area = out.area();
    const std::int64_t weights = std::int64_t(layer.in_channels) * taps;
    const std::int64_t row_tiles = divide_up(layer.out_channels, ROWS);
    const std::int64_t tiles = row_tiles * divide_up<std::int64_t>(weights + 1, COLUMNS);
    const int share = workers_of_a_tile<T, LANES>(tiles, area), team = share * (LANES / QUAD);
    const int quad = quad_of_thread<LANES>(), place = worker_of_thread<LANES>() % share;
    for (std::int64_t base = 0; base < tiles; base += WORKERS / share) {
        const std::int64_t at = base + worker_of_thread<LANES>() / share, column0 = at / row_tiles * COLUMNS;
        const int first = static_cast<int>(at % row_tiles) * ROWS;
        Tile tile = {};
        for (int pixel = place; at < tiles && pixel < area; pixel += share) {
            const int y0 = (out.y0 + pixel / out.width()) * layer.stride_height - layer.pad_height;
            const int x0 = (out.x0 + pixel % out.width()) * layer.stride_width - layer.pad_width;
            Lanes<T> a[ROWS] = {};
#pragma unroll
            for (int i = 0; i < ROWS; ++i) {
                if (first + i < layer.out_channels) {
                    a[i] = lanes_at<LANES>(coefficients, std::int64_t(first + i) * area + pixel, quad);
                }
            }
            int c = static_cast<int>(column0 / taps), ky = static_cast<int>(column0 % taps) / layer.kernel_width;
            int kx = static_cast<int>(column0 % taps) % layer.kernel_width;
#pragma unroll
            for (int j = 0; j < COLUMNS; ++j) {
                const int y = y0 + ky, x = x0 + kx;
                Lanes<T> value = {};
                if (column0 + j == weights) value = {{T(1), T(1), T(1), T(1)}};
                if (column0 + j < weights && y >= 0 && y < layer.in_height && x >= 0 && x < layer.in_width) {
                    const std::int64_t pixel_below =
                        (std::int64_t(c) * in.height() + y - in.y0) * in.width() + x - in.x0;
                    value = lanes_at<LANES>(values, pixel_below, quad);
                }
#pragma unroll
                for (int i = 0; i < ROWS; ++i) {
#pragma unroll
                    for (int v = 0; v < QUAD; ++v) tile.sum[i][j] += a[i].at[v] * value.at[v];
                }
                if (++kx == layer.kernel_width) kx = 0, ++ky;
                if (ky == layer.kernel_height) ky = 0, ++c;
            }
        }
        tile.share(shared);
        __syncthreads();
        const int begin = threadIdx.x / team * team, me = threadIdx.x - begin;
        for (int i = me; at < tiles && i < Tile::VALUES; i += team) {
            const int channel = first + i / COLUMNS;
            const std::int64_t column = column0 + i % COLUMNS;
            T sum = T(0);
            for (int thread = 0; thread < team; ++thread) sum += shared[i * Tile::PITCH + begin + thread];
            if (channel >= layer.out_channels || column > weights) continue;
            T* const to = gradient + (column == weights ? parameters.bias + channel
                                                        : parameters.weight + channel * weights + column);
            *to += sum;
        }
        __syncthreads();  // the next tiles overwrite the parts
    }
}

// The same for identity rows: each lane has one output of the last layer, sources says which, and its coefficient is its
// sign.
template <class T, class Group>
__device__ void add_own_products(const Pass& pass, const Group& group, const Window& in, const T* upstream,
                                 const Source* sources, const T* values, T* gradient) {
    const int k = pass.layers - 1;
    const Layer& last = pass.layer[k];
    const Parameters parameters(pass, k);
    const int taps = last.kernel_height * last.kernel_width;
    const std::int64_t weights = std::int64_t(last.in_channels) * taps;
    for (std::int64_t item = threadIdx.x; item <= weights; item += THREADS) {
        const int c = static_cast<int>(item / taps), tap = static_cast<int>(item % taps);
        for (int lane = 0; lane < group.lanes; ++lane) {
            const Source source = sources[lane];
            const T own = group.negated(pass, lane) ? -upstream[lane] : upstream[lane];
            if (item == weights) {
                gradient[parameters.bias + source.channel] += own;
                continue;
            }
            const int y = source.y + tap / last.kernel_width, x = source.x + tap % last.kernel_width;
            if (y < 0 || y >= last.in_height || x < 0 || x >= last.in_width) continue;
            const std::int64_t at = (std::int64_t(c) * in.height() + y - in.y0) * in.width() + x - in.x0;
            gradient[parameters.weight + source.channel * weights + item] += own * values[at * Group::LANES + lane];
        }
    }
}

}  // namespace glsk::cuda
