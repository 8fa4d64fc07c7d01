// The pass of a 4 x 4 convolution that reads a 5 x 5 one of stride 2: the middle pass of CNN3, the second of CNN5.
//
// A thread is one lane: a row (an output unit) and a side (lower or upper). The row sees a patch of the input of
// ((K2 - 1) S1 + K1)^2 values, 11 x 11 for CNN3, and the thread holds its coefficients in registers from first to last.
// It walks the K2 x K2 x channels hidden units of its window: one coefficient through the ReLU, then K1 x K1 fused
// multiply-adds with the first layer's weights, which stay in registers for all K2 x K2 taps of a hidden channel.
//
// A thread block serves one (member, sample). Its shared memory holds what the lanes read: both layers' weights, the
// box, and for every hidden unit what a coefficient is multiplied with. Windows that hang over the border find zeros
// there, so no lane tests a border.
#include "kernels.h"
#include "rows.cuh"
#include "strided.cuh"

namespace glsk::cuda {
namespace {

constexpr int THREADS = 128;
constexpr int MAX_CHUNK = 1024;
constexpr int K1 = 5, S1 = 2, K2 = 4;  // kernels of the first and the second convolution, stride of the first
constexpr int PATCH = (K2 - 1) * S1 + K1;
constexpr int PITCH1 = divide_up(K1 * K1, 4) * 4,
              PITCH2 = divide_up(K2, 4) * 4;  // floats of a filter, of a row of taps
constexpr int EARLY = K1 * (K1 - 1);          // taps of the first filter kept in registers: all but its last row

// Floats between two rows' weights of one hidden channel: K2 rows of taps, each padded to whole float4s, and one float4
// more, so that neighbouring rows, which neighbouring lanes read at once, start in different banks.
constexpr int W2_PITCH = K2 * PITCH2 + 4;

// Where the shared memory's parts begin, in floats, for one call. slopes come first.
struct Shape {
    int hidden_height, hidden_width;  // hidden units that the windows cover, border included
    int box_height, box_width;        // inputs that those cover, border included
    int slopes_row, slopes_rest;      // bytes to the next row of slopes, and from the window's end to the next channel
    int w2_channel;                   // bytes to the next hidden channel of w2
    int w2, w1, box, bias, list, counts, total;

    explicit Shape(const Pass& pass) {
        const Layer& first = pass.layer[0];
        const Layer& second = pass.layer[1];
        hidden_height = (second.out_height - 1) * second.stride_height + K2;
        hidden_width = (second.out_width - 1) * second.stride_width + K2;
        box_height = (hidden_height - 1) * S1 + K1;
        box_width = (hidden_width - 1) * S1 + K1;
        slopes_row = hidden_width * 16;
        slopes_rest = (hidden_height - K2) * hidden_width * 16;
        w2_channel = second.out_channels * W2_PITCH * 4;
        const int channels = first.out_channels;
        w2 = channels * hidden_height * hidden_width * 4;
        w1 = w2 + channels * second.out_channels * W2_PITCH;
        box = w1 + first.in_channels * channels * PITCH1;
        bias = box + first.in_channels * box_height * box_width * 2;
        list = bias + second.out_channels;
        counts = list + pass.chunk;
        total = counts + THREADS + 1;
    }
};

// A hidden unit's bounds and bias, and whether it exists: beyond the border there are zeros.
struct Unit {
    float low, high, bias;
    bool inside;
};

__device__ void fill(const Pass& pass, const Shape& shape, std::int64_t p, std::int64_t b, float* memory) {
    const Layer& first = pass.layer[0];
    const Layer& second = pass.layer[1];
    float4* slopes = reinterpret_cast<float4*>(memory);
    const float* lower = lower_of<float>(first.around, p, b);
    const float* upper = upper_of<float>(first.around, p, b);
    const float leak = static_cast<float>(first.leak);
    batched<4>(
        Strided(shape.hidden_height, shape.hidden_width), first.out_channels,
        [&](int channel, int row, int column) -> Unit {
            const int y = row - second.pad_height, x = column - second.pad_width;
            const bool inside = y >= 0 && y < second.in_height && x >= 0 && x < second.in_width;
            const int unit = inside ? (channel * second.in_height + y) * second.in_width + x : 0;
            const float bias = bias_of<float>(first, p, channel);
            if (!first.relu) return {0.f, 0.f, bias, inside};  // lower >= 0: the identity
            return {lower[unit], upper[unit], bias, inside};
        },
        [&](int index, const Unit& unit) {
            const Steps<float> s(lines_from_bounds(pass.rule, leak, unit.low, unit.high), unit.bias);
            slopes[index] = unit.inside ? float4{s.slope, s.constant, s.negative_slope, s.negative_constant}
                                        : float4{0.f, 0.f, 0.f, 0.f};
        });
    const float* weight2 = weight_of<float>(second, p);
    for (Strided i(second.out_channels, W2_PITCH); i.outer < first.out_channels; i.next()) {
        const int ky = i.inner / PITCH2, kx = i.inner % PITCH2, from = (i.middle * first.out_channels + i.outer) * K2;
        memory[shape.w2 + i.index] = kx < K2 && ky < K2 ? weight2[(from + ky) * K2 + kx] : 0.f;
    }
    const float* weight1 = weight_of<float>(first, p);
    for (Strided i(first.out_channels, PITCH1); i.outer < first.in_channels; i.next()) {
        const int from = (i.middle * first.in_channels + i.outer) * K1 * K1;
        memory[shape.w1 + i.index] = i.inner < K1 * K1 ? weight1[from + i.inner] : 0.f;
    }
    float2* box = reinterpret_cast<float2*>(memory + shape.box);
    batched<4>(
        Strided(shape.box_height, shape.box_width), first.in_channels,
        [&](int channel, int row, int column) -> float2 {
            const int y = row - second.pad_height * S1 - first.pad_height;
            const int x = column - second.pad_width * S1 - first.pad_width;
            const bool inside = y >= 0 && y < first.in_height && x >= 0 && x < first.in_width;
            const int input = inside ? (channel * first.in_height + y) * first.in_width + x : 0;
            float2 at;
            center_radius<float>(pass, p, b, input, at.x, at.y);
            return inside ? at : float2{0.f, 0.f};
        },
        [&](int index, const float2& at) { box[index] = at; });
    for (int i = threadIdx.x; i < second.out_channels; i += THREADS) {
        memory[shape.bias + i] = bias_of<float>(second, p, i);
    }
}

// count floats from shared memory, four at a time.
template <int count>
__device__ __forceinline__ void load(float (&to)[count], const float* from) {
#pragma unroll
    for (int q = 0; q < count / 4; ++q) {
        const float4 four = reinterpret_cast<const float4*>(from)[q];
        to[4 * q] = four.x, to[4 * q + 1] = four.y, to[4 * q + 2] = four.z, to[4 * q + 3] = four.w;
    }
#pragma unroll
    for (int i = count / 4 * 4; i < count; ++i) to[i] = from[i];
}

// The coefficients of a lane's patch of one input channel; the constants of all its steps are added to constant.
// slopes: the shared address of the window's first entry, 8 bytes into it for an upper bound, which swaps the entry's
// halves. It and w2 are stepped in bytes by constants of the call, which an instruction reads without a register.
__device__ __forceinline__ void walk(const Shape& shape, int channels, unsigned slopes, const char* w2, const float* w1,
                                     float (&patch)[PATCH][PATCH], float& constant) {
#pragma unroll
    for (int i = 0; i < PATCH; ++i) {
#pragma unroll
        for (int j = 0; j < PATCH; ++j) patch[i][j] = 0.f;
    }
#pragma unroll 1
    for (int c = 0; c < channels; ++c) {
        float tap[EARLY];  // the last row is read again for every ky: with all in registers they would not suffice
        load(tap, w1);
#pragma unroll
        for (int ky = 0; ky < K2; ++ky) {
            float a[K2];
            load(a, reinterpret_cast<const float*>(w2) + ky * PITCH2);
#pragma unroll
            for (int kx = 0; kx < K2; ++kx) {
                // The sign of the weight picks the half of the entry: the other one if it is negative.
                const unsigned half = __float_as_uint(a[kx]) >> 28 & 8u;
                const float2 step = load_shared<float2>(slopes ^ half, kx * sizeof(float4));
                constant += a[kx] * step.y;
                a[kx] *= step.x;
#pragma unroll
                for (int t = 0; t < EARLY; ++t) {
                    patch[ky * S1 + t / K1][kx * S1 + t % K1] += a[kx] * tap[t];
                }
            }
#pragma unroll
            for (int t = EARLY; t < K1 * K1; ++t) {
                const float late = load_again(w1 + t);
#pragma unroll
                for (int kx = 0; kx < K2; ++kx) patch[ky * S1 + t / K1][kx * S1 + t % K1] += a[kx] * late;
            }
            slopes += shape.slopes_row;
        }
        w1 += PITCH1;
        w2 += shape.w2_channel;
        slopes += shape.slopes_rest;
    }
}

// The patch meets the box: adds A c to middle and |A| r to radius.
__device__ __forceinline__ void meet(const Shape& shape, const float2* box, const float (&patch)[PATCH][PATCH],
                                     float& middle, float& radius) {
#pragma unroll
    for (int i = 0; i < PATCH; ++i) {
#pragma unroll
        for (int j = 0; j < PATCH; ++j) {
            const float2 at = box[j];
            middle += patch[i][j] * at.x;
            radius += fabsf(patch[i][j]) * at.y;
        }
        box += shape.box_width;
    }
}

// What a thread works on, as one word of the list of lanes' rows: unpacking it again costs less than registers.
struct Row {
    int channel, y, x;

    static constexpr int LIMIT = 1024;  // of every coordinate

    __device__ __forceinline__ explicit Row(int word) : channel(word >> 20), y(word >> 10 & 1023), x(word & 1023) {}

    // order: rows come position by position, all channels of one position together.
    __device__ __forceinline__ static int pack(const Layer& last, int order) {
        const int position = order / last.out_channels;
        return order % last.out_channels << 20 | position / last.out_width << 10 | position % last.out_width;
    }
};

// ONE: a single input channel. BLOCKS: thread blocks a multiprocessor should hold, which limits the registers of a
// thread, to 168 with three and to 255 with two.
template <bool ONE, int BLOCKS>
__global__ void __launch_bounds__(THREADS, BLOCKS)
    patch_kernel(const Pass pass, const Shape shape, const std::int64_t first_pair) {
    GLSK_SHARED(memory);
    const Layer& first = pass.layer[0];
    const Layer& second = pass.layer[1];
    float* shared = reinterpret_cast<float*>(memory);
    int* list = reinterpret_cast<int*>(shared + shape.list);
    int* counts = reinterpret_cast<int*>(shared + shape.counts);
    const volatile int& unstable = counts[THREADS];  // read again when needed, which spares a register
    {
        const std::int64_t pair = first_pair + blockIdx.x / pass.chunks;
        const std::int64_t p = pair / pass.samples, b = pair % pass.samples;
        const int start = static_cast<int>(blockIdx.x % pass.chunks) * pass.chunk;
        const int size = min(pass.chunk, pass.rows - start);
        unstable_rows<float>(pass, p, b, start, size, list, counts);
        if (unstable == 0) return;
        for (int i = threadIdx.x; i < unstable; i += THREADS) list[i] = Row::pack(second, start + list[i]);
        fill(pass, shape, p, b, shared);
        __syncthreads();
    }
    const int sides = pass.signs - 1;  // a row's lower and upper bounds are neighbouring lanes
    // All registers are needed inside: the lane and its row are worked out again each time rather than kept.
    for (int round = 0; round < unstable << sides; round += THREADS) {
        if (round + thread_index() >= unstable << sides) break;
        float middle = 0.f, radius = 0.f;
        for (int in = 0; in < (ONE ? 1 : first.in_channels); ++in) {
            float patch[PATCH][PATCH], constant = 0.f;
            {
                const int lane = round + thread_index();
                const Row row(list[lane >> sides]);
                const int y = row.y * second.stride_height, x = row.x * second.stride_width;
                walk(shape, first.out_channels,
                     shared_address(memory) + (y * shape.hidden_width + x) * sizeof(float4) + (lane & sides) * 8,
                     reinterpret_cast<const char*>(shared + shape.w2 + row.channel * W2_PITCH),
                     shared + shape.w1 + in * first.out_channels * PITCH1, patch, constant);
            }
            if (in == 0) middle = constant;
            const Row row(list[(round + thread_index()) >> sides]);
            const int y = row.y * second.stride_height * S1, x = row.x * second.stride_width * S1;
            const float2* box = reinterpret_cast<const float2*>(shared + shape.box);
            meet(shape, box + (in * shape.box_height + y) * shape.box_width + x, patch, middle, radius);
        }
        const int lane = round + thread_index();
        const Row row(list[lane >> sides]);
        const bool upper = (lane & sides) != 0;
        middle += shared[shape.bias + row.channel];
        const std::int64_t pair = first_pair + block_index() / pass.chunks;
        float* out = static_cast<float*>(upper ? pass.upper : pass.lower) + pair * pass.rows;
        out[(row.channel * second.out_height + row.y) * second.out_width + row.x] =
            upper ? middle + radius : middle - radius;  // to the pass above an infinite one is no bound
    }
}

bool is_square(const Layer& layer, int kernel, int stride) {
    return layer.kernel_height == kernel && layer.kernel_width == kernel && layer.stride_height == stride &&
           layer.stride_width == stride;
}

// A chunk holds every row unless that leaves multiprocessors idle.
Pass in_chunks(Pass pass) {
    const std::int64_t pairs = pass.members * pass.samples;
    const std::int64_t wanted = divide_up<std::int64_t>(attribute(cudaDevAttrMultiProcessorCount) * 3, pairs);
    const std::int64_t lanes_per_chunk = std::max<std::int64_t>(THREADS / pass.signs, pass.rows / wanted);
    pass.chunk = static_cast<int>(std::min<std::int64_t>({pass.rows, MAX_CHUNK, lanes_per_chunk}));
    pass.chunks = divide_up(pass.rows, pass.chunk);
    return pass;
}

}  // namespace

bool fits_patch(const Pass& pass) {
    const Layer& first = pass.layer[0];
    const Layer& last = pass.layer[1];
    if (pass.layers != 2 || pass.C.data != nullptr || (first.relu && first.around.are_lines())) return false;
    if (!is_square(first, K1, S1) || !is_square(last, K2, last.stride_height)) return false;
    // The sizes first, so that the sum below cannot overflow an int.
    const std::int64_t weights = last.in_features() * 16;
    if (std::max({last.out_channels, last.out_height, last.out_width}) >= Row::LIMIT) return false;
    return weights < (1 << 20) && first.in_features() < (1 << 20) && pass.rows < (1 << 30) &&
           std::int64_t(4) * Shape(in_chunks(pass)).total <= attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
}

void run_patch(Pass pass, void* stream) {
    pass = in_chunks(pass);
    const Shape shape(pass);
    const auto kernel = pass.layer[0].in_channels == 1 ? patch_kernel<true, 3> : patch_kernel<false, 2>;
    launch_pairs("the patch kernel", kernel, pass.members * pass.samples, pass.chunks, THREADS,
                 std::size_t(4) * shape.total, stream, pass, shape);
}

}  // namespace glsk::cuda
