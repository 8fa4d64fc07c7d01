// The last pass of conv, conv, linear (CNN3): the specification, or the logits, to the box.
//
// A thread block serves nine lanes (the specification of ten classes has nine rows) of one (member, sample, side).
// All coefficients stay in shared memory, [unit][lane], and are made layer by layer:
//   1. rows times the linear layer's weights: a thread makes a unit's nine lanes;
//   2. transposed second convolution: a thread makes a cell of S2 x S2 hidden pixels, four channels, nine lanes;
//   3. transposed first convolution and the box: a thread makes 2 x 2 cells of S1 x S1 inputs for three lanes, whose
//      coefficients never leave registers.
// Cells are aligned to the stride in padded coordinates, so that which tap meets which pixel is known to the compiler.
#include "kernels.h"
#include "relaxation.cuh"

namespace glsk::cuda {
namespace {

constexpr int LANES = 9, TRIPLE = 3, CHANNELS = 4;
constexpr int THREADS = 128;  // CNN3: as many as there are cells and 4-channel groups in step 2
constexpr int BLOCKS = 2;     // per multiprocessor: at most 255 registers a thread, of which step 2 sums in 144
constexpr int SEGMENTS = 8;   // of the final sum over threads

// Sizes of the shared memory's parts, in floats (in this order).
struct Shape {
    int first, second, w2, w1, rows, total;
    int channels;  // hidden channels rounded up to CHANNELS

    __host__ __device__ explicit Shape(const Pass& pass) {
        const Layer& conv1 = pass.layer[0];
        const Layer& conv2 = pass.layer[1];
        channels = divide_up(conv1.out_channels, CHANNELS) * CHANNELS;
        w2 = conv2.out_channels * conv2.kernel_height * conv2.kernel_width * channels;
        w1 = conv1.in_channels * conv1.out_channels * divide_up(conv1.kernel_height * conv1.kernel_width, 4) * 4;
        first = divide_up(conv1.out_channels * conv1.out_height * conv1.out_width * LANES, 4) * 4;
        // The final sum reuses the place of the second layer's coefficients.
        second = conv2.out_channels * conv2.out_height * conv2.out_width * LANES;
        second = divide_up(max(second, (THREADS + SEGMENTS) * LANES), 4) * 4;
        rows = pass.layer[2].out_channels * LANES;
        total = w2 + w1 + first + second + rows;
    }
};

struct Job {
    std::int64_t p, b;
    int first_row, rows;  // of at most LANES
    float sign;           // -1: the upper bounds, as lower bounds of the negated rows
};

// Step 0: weights with channels innermost, and the rows [logit][lane].
__device__ void stage(const Pass& pass, const Shape& shape, const Job& job, float* w2, float* w1, float* rows) {
    const Layer& conv1 = pass.layer[0];
    const Layer& conv2 = pass.layer[1];
    const int taps2 = conv2.kernel_height * conv2.kernel_width, taps1 = conv1.kernel_height * conv1.kernel_width;
    const int pitch1 = divide_up(taps1, 4) * 4, me = threadIdx.x;
    const float* weight2 = weight_of<float>(conv2, job.p);
    for (int i = me; i < shape.w2; i += THREADS) {  // [out channel][tap][hidden channel]
        const int c = i % shape.channels, tap = i / shape.channels % taps2, out = i / shape.channels / taps2;
        w2[i] = c < conv2.in_channels ? weight2[(out * conv2.in_channels + c) * taps2 + tap] : 0.f;
    }
    const float* weight1 = weight_of<float>(conv1, job.p);
    for (int i = me; i < shape.w1; i += THREADS) {  // [in channel][hidden channel][tap]
        const int tap = i % pitch1, c = i / pitch1 % conv1.out_channels, in = i / pitch1 / conv1.out_channels;
        w1[i] = tap < taps1 ? weight1[(c * conv1.in_channels + in) * taps1 + tap] : 0.f;
    }
    for (int i = me; i < shape.rows; i += THREADS) {
        const int lane = i % LANES, logit = i / LANES, row = job.first_row + lane;
        float value = 0.f;
        if (lane < job.rows) {
            value = pass.C.data == nullptr ? (row == logit ? 1.f : 0.f)
                                           : slice<float>(pass.C, row, job.b)[logit];  // .member is the row stride
        }
        rows[i] = job.sign * value;
    }
}

// Step 1.
__device__ void through_linear(const Pass& pass, const Job& job, const float* rows, float* second, float* total) {
    const Layer& conv2 = pass.layer[1];
    const Layer& linear = pass.layer[2];
    const int units = linear.in_channels, area = conv2.out_height * conv2.out_width;
    const float* weight = weight_of<float>(linear, job.p);
    for (int unit = threadIdx.x; unit < units; unit += THREADS) {
        float a[LANES] = {};
        for (int logit = 0; logit < linear.out_channels; ++logit) {
            const float w = weight[std::int64_t(logit) * units + unit];
#pragma unroll
            for (int v = 0; v < LANES; ++v) a[v] += rows[logit * LANES + v] * w;
        }
        const Steps<float> steps(lines_of<float>(conv2, pass.rule, job.p, job.b, unit),
                                 bias_of<float>(conv2, job.p, unit / area));
#pragma unroll
        for (int v = 0; v < LANES; ++v) second[unit * LANES + v] = steps.apply(a[v], total[v]);
    }
}

// Step 2.
template <int K, int S>
__device__ void through_second(const Pass& pass, const Shape& shape, const Job& job, const float* second,
                               const float* w2, float* first, float* total) {
    constexpr int REACH = divide_up(K, S);  // output rows that touch a cell
    const Layer& conv1 = pass.layer[0];
    const Layer& conv2 = pass.layer[1];
    const int y0 = conv2.pad_height / S, y1 = (conv2.in_height - 1 + conv2.pad_height) / S;
    const int x0 = conv2.pad_width / S, x1 = (conv2.in_width - 1 + conv2.pad_width) / S;
    const int cells_x = x1 - x0 + 1, cells = (y1 - y0 + 1) * cells_x;
    for (int item = threadIdx.x; item < shape.channels / CHANNELS * cells; item += THREADS) {
        const int channel = item / cells * CHANNELS;
        const int cell_y = y0 + item % cells / cells_x, cell_x = x0 + item % cells % cells_x;
        float sum[S][S][CHANNELS][LANES] = {};
#pragma unroll
        for (int dy = 0; dy < REACH; ++dy) {
#pragma unroll
            for (int dx = 0; dx < REACH; ++dx) {
                const int oy = cell_y - dy, ox = cell_x - dx;
                if (oy < 0 || oy >= conv2.out_height || ox < 0 || ox >= conv2.out_width) continue;
#pragma unroll 1
                for (int out = 0; out < conv2.out_channels; ++out) {
                    float a[LANES];
                    const float* from = second + ((out * conv2.out_height + oy) * conv2.out_width + ox) * LANES;
#pragma unroll
                    for (int v = 0; v < LANES; ++v) a[v] = from[v];
                    const float* weight = w2 + out * K * K * shape.channels + channel;
#pragma unroll
                    for (int py = 0; py < S; ++py) {
#pragma unroll
                        for (int px = 0; px < S; ++px) {
                            const int ky = dy * S + py, kx = dx * S + px;
                            if (ky >= K || kx >= K) continue;
                            const float4 w = *reinterpret_cast<const float4*>(weight + (ky * K + kx) * shape.channels);
#pragma unroll
                            for (int v = 0; v < LANES; ++v) {
                                sum[py][px][0][v] += a[v] * w.x;
                                sum[py][px][1][v] += a[v] * w.y;
                                sum[py][px][2][v] += a[v] * w.z;
                                sum[py][px][3][v] += a[v] * w.w;
                            }
                        }
                    }
                }
            }
        }
#pragma unroll
        for (int py = 0; py < S; ++py) {
#pragma unroll
            for (int px = 0; px < S; ++px) {
                const int y = cell_y * S + py - conv2.pad_height, x = cell_x * S + px - conv2.pad_width;
                if (y < 0 || y >= conv2.in_height || x < 0 || x >= conv2.in_width) continue;
#pragma unroll
                for (int i = 0; i < CHANNELS; ++i) {
                    if (channel + i >= conv2.in_channels) continue;
                    const int unit = ((channel + i) * conv2.in_height + y) * conv2.in_width + x;
                    const Steps<float> steps(lines_of<float>(conv1, pass.rule, job.p, job.b, unit),
                                             bias_of<float>(conv1, job.p, channel + i));
#pragma unroll
                    for (int v = 0; v < LANES; ++v) {
                        first[unit * LANES + v] = steps.apply(sum[py][px][i][v], total[v]);
                    }
                }
            }
        }
    }
}

// Step 3: adds A c - |A| r of the thread's three lanes to total.
template <int K, int S>
__device__ void through_first(const Pass& pass, const Job& job, int triple, int worker, const float* first,
                              const float* w1, float* total) {
    constexpr int CELLS = 2, PIXELS = CELLS * S, REACH = divide_up(K, S), SOURCES = CELLS + REACH - 1;
    constexpr int PITCH = divide_up(K * K, 4) * 4, WORKERS = THREADS / TRIPLE;
    const Layer& conv1 = pass.layer[0];
    const int y0 = conv1.pad_height / S, y1 = (conv1.in_height - 1 + conv1.pad_height) / S;
    const int x0 = conv1.pad_width / S, x1 = (conv1.in_width - 1 + conv1.pad_width) / S;
    const int tiles_x = divide_up(x1 - x0 + 1, CELLS), tiles = divide_up(y1 - y0 + 1, CELLS) * tiles_x;
    for (int item = worker; item < conv1.in_channels * tiles; item += WORKERS) {
        const int in = item / tiles;
        const int cell_y = y0 + item % tiles / tiles_x * CELLS, cell_x = x0 + item % tiles % tiles_x * CELLS;
        float sum[PIXELS][PIXELS][TRIPLE] = {};
#pragma unroll 1
        for (int c = 0; c < conv1.out_channels; ++c) {
            float weight[PITCH];
#pragma unroll
            for (int q = 0; q < PITCH / 4; ++q) {
                const float4 four = reinterpret_cast<const float4*>(w1 + (in * conv1.out_channels + c) * PITCH)[q];
                weight[4 * q] = four.x, weight[4 * q + 1] = four.y;
                weight[4 * q + 2] = four.z, weight[4 * q + 3] = four.w;
            }
#pragma unroll
            for (int ey = 0; ey < SOURCES; ++ey) {
#pragma unroll
                for (int ex = 0; ex < SOURCES; ++ex) {
                    const int oy = cell_y - (REACH - 1) + ey, ox = cell_x - (REACH - 1) + ex;
                    const bool inside = oy >= 0 && oy < conv1.out_height && ox >= 0 && ox < conv1.out_width;
                    const float* from =
                        first + ((c * conv1.out_height + oy) * conv1.out_width + ox) * LANES + triple * TRIPLE;
                    float a[TRIPLE];
#pragma unroll
                    for (int v = 0; v < TRIPLE; ++v) a[v] = inside ? from[v] : 0.f;
#pragma unroll
                    for (int py = 0; py < PIXELS; ++py) {
#pragma unroll
                        for (int px = 0; px < PIXELS; ++px) {
                            const int ky = S * (REACH - 1 - ey) + py, kx = S * (REACH - 1 - ex) + px;
                            if (ky < 0 || ky >= K || kx < 0 || kx >= K) continue;
#pragma unroll
                            for (int v = 0; v < TRIPLE; ++v) sum[py][px][v] += a[v] * weight[ky * K + kx];
                        }
                    }
                }
            }
        }
#pragma unroll
        for (int py = 0; py < PIXELS; ++py) {
#pragma unroll
            for (int px = 0; px < PIXELS; ++px) {
                const int y = cell_y * S + py - conv1.pad_height, x = cell_x * S + px - conv1.pad_width;
                if (y < 0 || y >= conv1.in_height || x < 0 || x >= conv1.in_width) continue;
                float center, radius;
                center_radius<float>(pass, job.p, job.b, (in * conv1.in_height + y) * conv1.in_width + x, center,
                                     radius);
#pragma unroll
                for (int v = 0; v < TRIPLE; ++v) total[v] += sum[py][px][v] * center - fabsf(sum[py][px][v]) * radius;
            }
        }
    }
}

// Sums the threads' totals in a fixed order and writes the results.
__device__ void finish(const Pass& pass, const Job& job, const float* rows, const float* sums, float* parts) {
    const Layer& linear = pass.layer[2];
    constexpr int LENGTH = THREADS / SEGMENTS;
    const int me = threadIdx.x;
    if (me < SEGMENTS * LANES) {
        float sum = 0.f;
        for (int t = 0; t < LENGTH; ++t) sum += sums[(me / LANES * LENGTH + t) * LANES + me % LANES];
        parts[me] = sum;
    }
    __syncthreads();
    if (me < job.rows) {
        float sum = 0.f;
        for (int s = 0; s < SEGMENTS; ++s) sum += parts[s * LANES + me];
        for (int logit = 0; logit < linear.out_channels; ++logit) {
            sum += rows[logit * LANES + me] * bias_of<float>(linear, job.p, logit);
        }
        void* out = job.sign > 0.f ? pass.lower : pass.upper;
        static_cast<float*>(out)[(job.p * pass.samples + job.b) * pass.rows + job.first_row + me] =
            job.sign * sound(sum);
    }
}

template <int K2, int S2, int K1, int S1>
__global__ void __launch_bounds__(THREADS, BLOCKS)
    margins_kernel(const Pass pass, const Shape shape, const std::int64_t first_pair) {
    GLSK_SHARED(memory);
    float* w2 = reinterpret_cast<float*>(memory);
    float* w1 = w2 + shape.w2;
    float* first = w1 + shape.w1;
    float* second = first + shape.first;
    float* rows = second + shape.second;
    const unsigned chunks = pass.chunks, part = blockIdx.x % (chunks * pass.signs);
    const std::int64_t pair = first_pair + blockIdx.x / (chunks * pass.signs);
    const int first_row = static_cast<int>(part % chunks) * LANES;
    const Job job = {pair / pass.samples, pair % pass.samples, first_row, min(LANES, pass.rows - first_row),
                     part / chunks == 1 ? -1.f : 1.f};
    stage(pass, shape, job, w2, w1, rows);
    __syncthreads();
    float total[LANES] = {};
    through_linear(pass, job, rows, second, total);
    __syncthreads();
    through_second<K2, S2>(pass, shape, job, second, w2, first, total);
    __syncthreads();
    const int triple = threadIdx.x % TRIPLE, worker = threadIdx.x / TRIPLE;
    float* mine = second + threadIdx.x * LANES;
    for (int v = 0; v < LANES; ++v) mine[v] = total[v];
    if (worker < THREADS / TRIPLE) {
        float sum[TRIPLE] = {};
        through_first<K1, S1>(pass, job, triple, worker, first, w1, sum);
        for (int v = 0; v < TRIPLE; ++v) mine[triple * TRIPLE + v] += sum[v];
    }
    __syncthreads();
    finish(pass, job, rows, second, second + THREADS * LANES);
}

bool is_square(const Layer& layer, int kernel, int stride) {
    return layer.kernel_height == kernel && layer.kernel_width == kernel && layer.stride_height == stride &&
           layer.stride_width == stride;
}

}  // namespace

bool fits_margins(const Pass& pass) {
    if (pass.layers != 3 || pass.known_lower.data != nullptr || !pass.layer[2].is_linear()) return false;
    if (!is_square(pass.layer[0], 5, 2) || !is_square(pass.layer[1], 4, 2)) return false;
    for (int k = 0; k < 3; ++k) {  // before the sum below can overflow an int
        const Layer& layer = pass.layer[k];
        if (layer.in_features() > (1 << 20) || layer.out_features() > (1 << 20)) return false;
        if (layer.relu && layer.around.row != 0) return false;  // lines that differ by the row
        if (layer.in_channels * std::int64_t(layer.out_channels) > (1 << 24)) return false;
    }
    if (pass.rows > 4 * LANES) return false;  // more rows share more in the general kernel
    return std::int64_t(4) * Shape(pass).total <= attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
}

void run_margins(Pass pass, void* stream) {
    pass.chunks = divide_up(pass.rows, LANES);
    const Shape shape(pass);
    launch_pairs("the margins kernel", margins_kernel<4, 2, 5, 2>, pass.members * pass.samples,
                 pass.signs * pass.chunks, THREADS, std::size_t(4) * shape.total, stream, pass, shape);
}

}  // namespace glsk::cuda
