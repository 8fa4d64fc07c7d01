// Interval bound propagation through one layer: centre W c + b, radius |W| r.
#include "api.h"
#include "interval.cuh"

namespace glsk::cuda {
namespace {

template <class T>
__device__ __forceinline__ void write_box(const Interval& interval, std::int64_t p, std::int64_t b, std::int64_t unit,
                                          T center, T radius) {
    const std::int64_t at = (p * interval.samples + b) * interval.layer.out_features() + unit;
    static_cast<T*>(interval.out_lower)[at] = sound(center - radius);
    static_cast<T*>(interval.out_upper)[at] = -sound(-center - radius);
}

// --- convolution: a thread makes one position of eight channels for two samples ---

constexpr int CONV_THREADS = 128, CHANNELS = 8, SAMPLES = 2;
constexpr int WEIGHTS = 1024;  // weights in shared memory at a time, per output channel

// Thread blocks of one member: blocks of (sample pair, position) items times blocks of channels.
struct ConvShape {
    std::int64_t blocks;
    unsigned items, positions;
    int channel_blocks, inputs;  // input channels whose weights are in shared memory at a time

    explicit ConvShape(const Interval& interval) {
        const Layer& layer = interval.layer;
        positions = static_cast<unsigned>(layer.out_height) * layer.out_width;
        const std::int64_t wanted = divide_up<std::int64_t>(interval.samples, SAMPLES) * positions;
        if (wanted > 0x7fffffff) throw std::invalid_argument("ibp_affine: too many samples for one call");
        items = static_cast<unsigned>(wanted);
        blocks = divide_up<std::int64_t>(items, CONV_THREADS);
        channel_blocks = divide_up(layer.out_channels, CHANNELS);
        inputs = std::max(1, std::min(layer.in_channels, WEIGHTS / (layer.kernel_height * layer.kernel_width)));
    }
};

template <class T>
__global__ void __launch_bounds__(CONV_THREADS)
    conv_kernel(const Interval interval, const ConvShape shape, const std::int64_t first_member) {
    GLSK_SHARED(memory);
    T* weights = reinterpret_cast<T*>(memory);  // [input channel][tap][CHANNELS]
    const Layer& layer = interval.layer;
    const unsigned per_member = static_cast<unsigned>(shape.blocks * shape.channel_blocks);
    const std::int64_t p = first_member + blockIdx.x / per_member;
    const unsigned part = blockIdx.x % per_member, item = part / shape.channel_blocks * CONV_THREADS + threadIdx.x;
    const int first = static_cast<int>(part % shape.channel_blocks) * CHANNELS;
    const int position = static_cast<int>(item % shape.positions);
    const std::int64_t sample = std::int64_t(item / shape.positions) * SAMPLES;
    const int taps = layer.kernel_height * layer.kernel_width;
    const int y0 = position / layer.out_width * layer.stride_height - layer.pad_height;
    const int x0 = position % layer.out_width * layer.stride_width - layer.pad_width;
    const T* weight = weight_of<T>(layer, p);
    T center[SAMPLES][CHANNELS] = {}, radius[SAMPLES][CHANNELS] = {};
    for (int base = 0; base < layer.in_channels; base += shape.inputs) {
        const int inputs = min(shape.inputs, layer.in_channels - base);
        __syncthreads();  // the weights of the round before have been read
        for (int i = threadIdx.x; i < inputs * taps * CHANNELS; i += CONV_THREADS) {
            const int channel = first + i % CHANNELS, at = i / CHANNELS;
            weights[i] = channel < layer.out_channels
                             ? weight[(std::int64_t(channel) * layer.in_channels + base) * taps + at]
                             : T(0);
        }
        __syncthreads();
        if (item >= shape.items) continue;
        for (int c = 0; c < inputs; ++c) {
            for (int ky = 0; ky < layer.kernel_height; ++ky) {
                const int y = y0 + ky;
                if (y < 0 || y >= layer.in_height) continue;
                for (int kx = 0; kx < layer.kernel_width; ++kx) {
                    const int x = x0 + kx;
                    if (x < 0 || x >= layer.in_width) continue;
                    const std::int64_t input = (std::int64_t(base + c) * layer.in_height + y) * layer.in_width + x;
                    T mid[SAMPLES] = {}, half[SAMPLES] = {};
#pragma unroll
                    for (int s = 0; s < SAMPLES; ++s) {
                        if (sample + s < interval.samples) {
                            read_box<T>(interval, p, sample + s, input, mid[s], half[s]);
                        }
                    }
                    const T* at = weights + ((c * layer.kernel_height + ky) * layer.kernel_width + kx) * CHANNELS;
#pragma unroll
                    for (int i = 0; i < CHANNELS; ++i) {
#pragma unroll
                        for (int s = 0; s < SAMPLES; ++s) {
                            center[s][i] += at[i] * mid[s];
                            radius[s][i] += magnitude(at[i]) * half[s];
                        }
                    }
                }
            }
        }
    }
    if (item >= shape.items) return;
#pragma unroll
    for (int i = 0; i < CHANNELS; ++i) {
        if (first + i >= layer.out_channels) continue;
        const T bias = bias_of<T>(layer, p, first + i);
#pragma unroll
        for (int s = 0; s < SAMPLES; ++s) {
            if (sample + s >= interval.samples) continue;
            const std::int64_t unit = std::int64_t(first + i) * shape.positions + position;
            write_box<T>(interval, p, sample + s, unit, center[s][i] + bias, radius[s][i]);
        }
    }
}

// --- linear: the usual tiled product, a thread makes 4 samples of 4 outputs ---

constexpr int TILE = 32, DEPTH = 16, EACH = 4, LINEAR_THREADS = TILE * TILE / (EACH * EACH);
constexpr int PITCH = TILE + 1;

template <class T>
__global__ void __launch_bounds__(LINEAR_THREADS)
    linear_kernel(const Interval interval, const unsigned row_tiles, const unsigned column_tiles,
                  const std::int64_t first_member) {
    GLSK_SHARED(memory);
    T* centers = reinterpret_cast<T*>(memory);  // [DEPTH][PITCH] samples
    T* radii = centers + DEPTH * PITCH;
    T* weights = radii + DEPTH * PITCH;  // [DEPTH][PITCH] outputs
    const Layer& layer = interval.layer;
    const std::int64_t p = first_member + blockIdx.x / (row_tiles * column_tiles);
    const unsigned part = blockIdx.x % (row_tiles * column_tiles);
    const std::int64_t b0 = std::int64_t(part / column_tiles) * TILE;
    const int out0 = static_cast<int>(part % column_tiles) * TILE, me = threadIdx.x;
    const int row = me / (TILE / EACH), column = me % (TILE / EACH);
    const T* weight = weight_of<T>(layer, p);
    T center[EACH][EACH] = {}, radius[EACH][EACH] = {};
    for (int base = 0; base < layer.in_channels; base += DEPTH) {
        __syncthreads();
        for (int i = me; i < TILE * DEPTH; i += LINEAR_THREADS) {
            const int input = base + i % DEPTH, at = i % DEPTH * PITCH + i / DEPTH, out = out0 + i / DEPTH;
            T mid = T(0), half = T(0);
            if (input < layer.in_channels && b0 + i / DEPTH < interval.samples) {
                read_box<T>(interval, p, b0 + i / DEPTH, input, mid, half);
            }
            centers[at] = mid, radii[at] = half;
            const bool inside = input < layer.in_channels && out < layer.out_channels;
            weights[at] = inside ? weight[std::int64_t(out) * layer.in_channels + input] : T(0);
        }
        __syncthreads();
        for (int d = 0; d < DEPTH; ++d) {
#pragma unroll
            for (int i = 0; i < EACH; ++i) {
                const T mid = centers[d * PITCH + row + i * (TILE / EACH)];
                const T half = radii[d * PITCH + row + i * (TILE / EACH)];
#pragma unroll
                for (int j = 0; j < EACH; ++j) {
                    const T w = weights[d * PITCH + column + j * (TILE / EACH)];
                    center[i][j] += w * mid;
                    radius[i][j] += magnitude(w) * half;
                }
            }
        }
    }
    for (int i = 0; i < EACH; ++i) {
        for (int j = 0; j < EACH; ++j) {
            const std::int64_t b = b0 + row + i * (TILE / EACH);
            const int out = out0 + column + j * (TILE / EACH);
            if (b >= interval.samples || out >= layer.out_channels) continue;
            write_box<T>(interval, p, b, out, center[i][j] + bias_of<T>(layer, p, out), radius[i][j]);
        }
    }
}

template <class T>
void run(const Interval& interval, void* stream) {
    const Layer& layer = interval.layer;
    if (layer.is_linear()) {
        const std::int64_t rows = divide_up<std::int64_t>(interval.samples, TILE);
        const std::int64_t columns = divide_up(layer.out_channels, TILE);
        launch_pairs("interval bounds of a linear layer", linear_kernel<T>, interval.members, rows * columns,
                     LINEAR_THREADS, 3 * DEPTH * PITCH * sizeof(T), stream, interval, static_cast<unsigned>(rows),
                     static_cast<unsigned>(columns));
        return;
    }
    const ConvShape shape(interval);
    const std::size_t weights = std::size_t(shape.inputs) * layer.kernel_height * layer.kernel_width * CHANNELS;
    launch_pairs("interval bounds of a convolution", conv_kernel<T>, interval.members,
                 shape.blocks * shape.channel_blocks, CONV_THREADS, weights * sizeof(T), stream, interval, shape);
}

}  // namespace

void run_ibp(const Interval& interval, bool is_double, void* stream) {
    if (is_double) {
        run<double>(interval, stream);
    } else {
        run<float>(interval, stream);
    }
}

}  // namespace glsk::cuda
