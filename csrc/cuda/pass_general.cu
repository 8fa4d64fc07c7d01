// The pass of any chain: coefficients in a bounded workspace in global memory, which is meant to stay in the L2 cache.
//
// A lane is a row and a side. A thread block takes groups of up to 32 lanes of one (member, sample) and walks them down
// the chain: coefficients [unit][lane] of one layer become those of the layer below. A thread makes four lanes of one
// pixel and up to eight channels at once. Only units that a row of the group depends on are visited: a window of each
// layer, for rows of a convolution's output.
#include "kernels.h"
#include "rows.cuh"

namespace glsk::cuda {
namespace {

constexpr int LANES = 32, QUAD = 4, THREADS = 128;
constexpr int WORKERS = THREADS / (LANES / QUAD);  // threads with the same four lanes
constexpr int MAX_CHUNK = 512;                     // rows of a chunk, a multiple of LANES
constexpr std::int64_t WORKSPACE = 256 << 20;      // bytes; more only if one thread block needs more

template <class T>
struct alignas(16) Lanes {
    T at[QUAD];
};

struct Window {
    int y0, y1, x0, x1;
    __device__ int height() const { return y1 - y0; }
    __device__ int width() const { return x1 - x0; }
    __device__ int area() const { return height() * width(); }
};

// The inputs of a layer that a window of its outputs reads.
__device__ Window inputs_of(const Layer& layer, const Window& out) {
    Window in;
    in.y0 = max(0, out.y0 * layer.stride_height - layer.pad_height);
    in.x0 = max(0, out.x0 * layer.stride_width - layer.pad_width);
    in.y1 = min(layer.in_height, (out.y1 - 1) * layer.stride_height - layer.pad_height + layer.kernel_height);
    in.x1 = min(layer.in_width, (out.x1 - 1) * layer.stride_width - layer.pad_width + layer.kernel_width);
    in.y1 = max(in.y0, in.y1), in.x1 = max(in.x0, in.x1);  // padding alone reads nothing
    return in;
}

// The group of lanes that a thread block is at.
struct Group {
    std::int64_t p, b;
    int rows, lanes;      // rows in the group; lanes = rows * signs
    const int* order;     // visiting order of each row, relative to first
    int first;

    __device__ int row(const Pass& pass, int lane) const {
        return row_at(pass, first + order[lane / pass.signs]);
    }
};

// Four lanes' constants and, at the end, results.
template <class T>
struct State {
    T constant[QUAD];
};

// What happens to a coefficient once it is complete: the ReLU and bias of the layer below, or the box.
template <class T>
struct Below {
    const Pass& pass;
    const Group& group;
    int k;  // the layer whose inputs the coefficients belong to

    __device__ void operator()(int channel, int y, int x, Lanes<T>& a, State<T>& state) const {
        const Layer& layer = pass.layer[k];
        const std::int64_t unit = (std::int64_t(channel) * layer.in_height + y) * layer.in_width + x;
        if (k == 0) {
            T center, radius;
            center_radius<T>(pass, group.p, group.b, unit, center, radius);
            for (int v = 0; v < QUAD; ++v) {
                state.constant[v] += a.at[v] * center - (a.at[v] < T(0) ? -a.at[v] : a.at[v]) * radius;
            }
            return;
        }
        // A linear layer numbers as channels what the layer below it numbers as channels, rows and columns.
        const Layer& below = pass.layer[k - 1];
        const int below_channel = static_cast<int>(unit / (std::int64_t(below.out_height) * below.out_width));
        const Steps<T> steps(relaxation_of<T>(below, pass.hbox, group.p, group.b, unit),
                             bias_of<T>(below, group.p, below_channel));
        for (int v = 0; v < QUAD; ++v) a.at[v] = steps.apply(a.at[v], state.constant[v]);
    }
};

// Rows of C as coefficients of the last layer's outputs.
template <class T>
__device__ void seed_specification(const Pass& pass, const Group& group, T* to, State<T>& state) {
    const Layer& last = pass.layer[pass.layers - 1];
    const int quad = threadIdx.x % (LANES / QUAD) * QUAD, area = last.out_height * last.out_width;
    for (std::int64_t unit = threadIdx.x / (LANES / QUAD); unit < last.out_features(); unit += WORKERS) {
        const T bias = bias_of<T>(last, group.p, static_cast<int>(unit / area));
        for (int v = 0; v < QUAD; ++v) {
            const int lane = quad + v;
            T a = T(0);
            if (lane < group.lanes) {
                a = slice<T>(pass.C, group.row(pass, lane), group.b)[unit];  // .member is the row stride
                if (lane % pass.signs == 1) a = -a;
            }
            state.constant[v] += a * bias;
            to[unit * LANES + lane] = a;
        }
    }
}

// Identity rows through the last layer: a row's coefficients are its weights, where its own window is.
template <class T>
__device__ void seed_rows(const Pass& pass, const Group& group, const Window& in, T* to, State<T>& state) {
    const int k = pass.layers - 1;
    const Layer& last = pass.layer[k];
    const T* weight = weight_of<T>(last, group.p);
    const Below<T> below{pass, group, k};
    const int quad = threadIdx.x % (LANES / QUAD) * QUAD, worker = threadIdx.x / (LANES / QUAD);
    const int taps = last.kernel_height * last.kernel_width;
    int y[QUAD], x[QUAD];
    std::int64_t channel[QUAD];
    for (int v = 0; v < QUAD; ++v) {
        const int row = quad + v < group.lanes ? group.row(pass, quad + v) : 0;
        const int area = last.out_height * last.out_width, position = row % area;
        channel[v] = row / area;
        y[v] = position / last.out_width * last.stride_height - last.pad_height;
        x[v] = position % last.out_width * last.stride_width - last.pad_width;
        const T bias = bias_of<T>(last, group.p, static_cast<int>(channel[v]));
        if (worker == 0 && quad + v < group.lanes) state.constant[v] += (quad + v) % pass.signs == 1 ? -bias : bias;
    }
    for (std::int64_t item = worker; item < std::int64_t(last.in_channels) * in.area(); item += WORKERS) {
        const int c = static_cast<int>(item / in.area()), pixel = static_cast<int>(item % in.area());
        const int iy = in.y0 + pixel / in.width(), ix = in.x0 + pixel % in.width();
        Lanes<T> a;
        for (int v = 0; v < QUAD; ++v) {
            const int ky = iy - y[v], kx = ix - x[v];
            const bool inside = quad + v < group.lanes && ky >= 0 && ky < last.kernel_height && kx >= 0 &&
                                kx < last.kernel_width;
            T w = T(0);
            if (inside) w = weight[(channel[v] * last.in_channels + c) * taps + ky * last.kernel_width + kx];
            a.at[v] = (quad + v) % pass.signs == 1 ? -w : w;
        }
        below(c, iy, ix, a, state);
        *reinterpret_cast<Lanes<T>*>(to + item * LANES + quad) = a;
    }
}

// Coefficients of layer k's outputs (in window out) to those of its inputs (in window in), CHANNELS of them at a time.
template <class T, int CHANNELS>
__device__ void step(const Pass& pass, const Group& group, int k, const Window& out, const Window& in, const T* from,
                     T* to, State<T>& state) {
    const Layer& layer = pass.layer[k];
    const T* weight = weight_of<T>(layer, group.p);
    const Below<T> below{pass, group, k};
    const int quad = threadIdx.x % (LANES / QUAD) * QUAD, worker = threadIdx.x / (LANES / QUAD);
    const int taps = layer.kernel_height * layer.kernel_width;
    const std::int64_t next_out = std::int64_t(layer.in_channels) * taps;  // weights of one output channel
    const std::int64_t blocks = divide_up(layer.in_channels, CHANNELS);
    for (std::int64_t item = worker; item < blocks * in.area(); item += WORKERS) {
        const int first = static_cast<int>(item / in.area()) * CHANNELS, pixel = static_cast<int>(item % in.area());
        const int channels = min(CHANNELS, layer.in_channels - first);
        const int py = in.y0 + pixel / in.width() + layer.pad_height;
        const int px = in.x0 + pixel % in.width() + layer.pad_width;
        T sum[CHANNELS][QUAD] = {};
        for (int oy = out.y0; oy < out.y1; ++oy) {
            const int ky = py - oy * layer.stride_height;
            if (ky < 0 || ky >= layer.kernel_height) continue;
            for (int ox = out.x0; ox < out.x1; ++ox) {
                const int kx = px - ox * layer.stride_width;
                if (kx < 0 || kx >= layer.kernel_width) continue;
                const T* w = weight + std::int64_t(first) * taps + ky * layer.kernel_width + kx;
                const T* a = from + std::int64_t((oy - out.y0) * out.width() + ox - out.x0) * LANES + quad;
                for (int c = 0; c < layer.out_channels; ++c) {
                    const Lanes<T> four = *reinterpret_cast<const Lanes<T>*>(a);
#pragma unroll
                    for (int i = 0; i < CHANNELS; ++i) {
                        const T tap = i < channels ? w[i * taps] : T(0);
#pragma unroll
                        for (int v = 0; v < QUAD; ++v) sum[i][v] += four.at[v] * tap;
                    }
                    w += next_out;
                    a += std::int64_t(out.area()) * LANES;
                }
            }
        }
#pragma unroll
        for (int i = 0; i < CHANNELS; ++i) {
            if (i >= channels) continue;
            Lanes<T> a;
#pragma unroll
            for (int v = 0; v < QUAD; ++v) a.at[v] = sum[i][v];
            below(first + i, py - layer.pad_height, px - layer.pad_width, a, state);
            if (k > 0) {
                const std::int64_t at = std::int64_t(first + i) * in.area() + pixel;
                *reinterpret_cast<Lanes<T>*>(to + at * LANES + quad) = a;
            }
        }
    }
}

// Adds up the threads' constants in a fixed order and writes the results.
template <class T>
__device__ void finish(const Pass& pass, const Group& group, const State<T>& state, T* sums) {
    const int me = threadIdx.x;
    for (int v = 0; v < QUAD; ++v) {
        sums[me / (LANES / QUAD) * LANES + me % (LANES / QUAD) * QUAD + v] = state.constant[v];
    }
    __syncthreads();
    if (me < group.lanes) {
        T sum = T(0);
        for (int worker = 0; worker < WORKERS; ++worker) sum += sums[worker * LANES + me];
        const bool upper = me % pass.signs == 1;
        T* out = static_cast<T*>(upper ? pass.upper : pass.lower) + (group.p * pass.samples + group.b) * pass.rows;
        out[group.row(pass, me)] = upper ? -sum : sum;
    }
    __syncthreads();
}

template <class T>
__device__ void back_substitute(const Pass& pass, const Group& group, T* from, T* to, T* sums) {
    State<T> state = {};
    int k = pass.layers - 1;
    Window out = {0, pass.layer[k].out_height, 0, pass.layer[k].out_width};
    if (pass.C.data != nullptr) {
        seed_specification(pass, group, from, state);
    } else {
        const Layer& last = pass.layer[k];
        out = {last.out_height, 0, last.out_width, 0};
        for (int i = 0; i < group.rows; ++i) {
            const int position = (group.first + group.order[i]) / last.out_channels;
            out.y0 = min(out.y0, position / last.out_width), out.y1 = max(out.y1, position / last.out_width + 1);
            out.x0 = min(out.x0, position % last.out_width), out.x1 = max(out.x1, position % last.out_width + 1);
        }
        const Window in = inputs_of(last, out);
        seed_rows(pass, group, in, from, state);
        out = in;
        --k;
    }
    for (; k >= 0; --k) {
        __syncthreads();
        const Layer& layer = pass.layer[k];
        // Beneath a linear layer lies an image of any shape: its window is the whole of it.
        if (k + 1 < pass.layers && pass.layer[k + 1].in_channels != layer.out_channels) {
            out = {0, layer.out_height, 0, layer.out_width};
        }
        const Window in = inputs_of(layer, out);
        if (layer.in_channels >= 5) {
            step<T, 8>(pass, group, k, out, in, from, to, state);
        } else if (layer.in_channels >= 2) {
            step<T, 4>(pass, group, k, out, in, from, to, state);
        } else {
            step<T, 1>(pass, group, k, out, in, from, to, state);
        }
        out = in;
        T* swap = from;
        from = to, to = swap;
    }
    finish(pass, group, state, sums);
}

template <class T>
__global__ void __launch_bounds__(THREADS, sizeof(T) == 4 ? 3 : 2) general_kernel(const Pass pass) {
    GLSK_SHARED(memory);
    T* sums = reinterpret_cast<T*>(memory);
    int* list = reinterpret_cast<int*>(sums + WORKERS * LANES);
    int* counts = list + pass.chunk;
    T* from = static_cast<T*>(pass.workspace) + 2 * pass.workspace_per_block * blockIdx.x;
    const std::int64_t jobs = pass.members * pass.samples * pass.chunks;
    for (std::int64_t job = blockIdx.x; job < jobs; job += gridDim.x) {
        const std::int64_t pair = job / pass.chunks;
        const int first = static_cast<int>(job % pass.chunks) * pass.chunk;
        Group group = {pair / pass.samples, pair % pass.samples, 0, 0, list, first};
        const int size = min(pass.chunk, pass.rows - first);
        unstable_rows<T>(pass, group.p, group.b, group.first, size, list, counts);
        const int unstable = counts[THREADS], most = LANES / pass.signs;
        for (int i = 0; i < unstable; i += most) {
            group.order = list + i;
            group.rows = min(most, unstable - i);
            group.lanes = group.rows * pass.signs;
            back_substitute(pass, group, from, from + pass.workspace_per_block, sums);
        }
        __syncthreads();  // the next job overwrites the list
    }
}

template <class T>
void run(Pass pass, void* stream, const Allocate& allocate) {
    const Layer& last = pass.layer[pass.layers - 1];
    std::int64_t widest = pass.C.data != nullptr ? last.out_features() : 1;
    for (int k = 1; k < pass.layers; ++k) widest = std::max(widest, pass.layer[k].in_features());
    if (pass.layers == 1) widest = std::max(widest, last.in_features());
    pass.workspace_per_block = widest * LANES;
    const std::size_t per_block = 2 * pass.workspace_per_block * sizeof(T);

    // Small chunks keep all multiprocessors busy when there are few pairs.
    const std::int64_t pairs = pass.members * pass.samples;
    const std::int64_t slots = 3 * attribute(cudaDevAttrMultiProcessorCount), group = LANES / pass.signs;
    const std::int64_t share = pass.rows * pairs / (2 * slots) / group * group;
    pass.chunk = static_cast<int>(std::max(group, std::min<std::int64_t>(MAX_CHUNK, share)));
    pass.chunks = divide_up(pass.rows, pass.chunk);

    const std::int64_t room = std::max<std::int64_t>(1, WORKSPACE / per_block);
    const unsigned grid = static_cast<unsigned>(std::min({pairs * pass.chunks, slots, room}));
    pass.workspace = allocate(grid * per_block);
    const std::size_t shared = WORKERS * LANES * sizeof(T) + (pass.chunk + THREADS + 1) * sizeof(int);
    launch("the general kernel", general_kernel<T>, grid, THREADS, shared, stream, pass);
}

}  // namespace

void run_general(Pass pass, bool is_double, void* stream, const Allocate& allocate) {
    if (is_double) {
        run<double>(pass, stream, allocate);
    } else {
        run<float>(pass, stream, allocate);
    }
}

}  // namespace glsk::cuda
