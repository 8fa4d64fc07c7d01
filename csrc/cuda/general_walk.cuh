// The walk of a group of rows down a chain, in a bounded workspace: what the general pass and its gradient share.
//
// A lane is a row and a side. A thread block takes a group of lanes of one (member, sample) and walks them down the chain:
// coefficients [unit][lane] of one layer become those of the layer below. A thread makes four lanes of one pixel and up
// to eight channels at once. Only units that a row of the group depends on are visited: a window of each layer, for
// rows of a convolution's output.
//
// Group says which rows the lanes are: LANES, of which there are at most; p, b, lanes, row(pass, lane), negated(pass,
// lane), an upper bound's lane, and step(pass), how many lanes on the next row is.
// Visit says what happens at each layer: constant(v, amount), a gain of the thread's vth lane; begin(k, window), the
// window of layer k's inputs that comes next; and (k, channel, y, x, at, a), complete coefficients of one of those
// inputs, number at of the window, which it leaves as coefficients of the pre-activation below.
#pragma once

#include "kernels.h"
#include "rows.cuh"

namespace glsk::cuda {

constexpr int QUAD = 4, THREADS = 128;
template <int LANES>
constexpr int WORKERS_OF = THREADS / (LANES / QUAD);  // threads with the same four lanes

template <class T>
struct alignas(16) Lanes {
    T at[QUAD];
};

template <int LANES, class T>
__device__ __forceinline__ Lanes<T>& lanes_at(T* values, std::int64_t unit, int quad) {
    return *reinterpret_cast<Lanes<T>*>(values + unit * LANES + quad);
}
template <int LANES, class T>
__device__ __forceinline__ const Lanes<T>& lanes_at(const T* values, std::int64_t unit, int quad) {
    return *reinterpret_cast<const Lanes<T>*>(values + unit * LANES + quad);
}

// The first of a thread's four lanes, and its number among those that have them.
template <int LANES>
__device__ __forceinline__ int quad_of_thread() {
    return threadIdx.x % (LANES / QUAD) * QUAD;
}
template <int LANES>
__device__ __forceinline__ int worker_of_thread() {
    return threadIdx.x / (LANES / QUAD);
}

struct Window {
    int y0, y1, x0, x1;
    __device__ int height() const { return y1 - y0; }
    __device__ int width() const { return x1 - x0; }
    __device__ int area() const { return height() * width(); }
};

// The inputs of a layer that a window of its outputs reads.
__device__ __forceinline__ Window inputs_of(const Layer& layer, const Window& out) {
    Window in;
    in.y0 = max(0, out.y0 * layer.stride_height - layer.pad_height);
    in.x0 = max(0, out.x0 * layer.stride_width - layer.pad_width);
    in.y1 = min(layer.in_height, (out.y1 - 1) * layer.stride_height - layer.pad_height + layer.kernel_height);
    in.x1 = min(layer.in_width, (out.x1 - 1) * layer.stride_width - layer.pad_width + layer.kernel_width);
    in.y1 = max(in.y0, in.y1), in.x1 = max(in.x0, in.x1);  // padding alone reads nothing
    return in;
}

// Whether a window of layer k's inputs is one of layer k - 1's outputs too. Beneath a linear layer lies an image of any
// shape, which it numbers as channels: its window is the whole of it.
__device__ __forceinline__ bool same_image(const Pass& pass, int k) {
    return k == 0 || pass.layer[k].in_channels == pass.layer[k - 1].out_channels;
}
__device__ __forceinline__ Window whole_output(const Layer& layer) { return {0, layer.out_height, 0, layer.out_width}; }

// Number of an input of a layer among all of them, and its channel as the layer below numbers channels.
__device__ __forceinline__ std::int64_t input_of(const Layer& layer, int channel, int y, int x) {
    return (std::int64_t(channel) * layer.in_height + y) * layer.in_width + x;
}
__device__ __forceinline__ int channel_below(const Layer& below, std::int64_t unit) {
    return static_cast<int>(unit / (std::int64_t(below.out_height) * below.out_width));
}

// Units of the widest coefficients of a walk.
inline std::int64_t widest(const Pass& pass) {
    const Layer& last = pass.layer[pass.layers - 1];
    std::int64_t most = pass.C.data != nullptr ? last.out_features() : 1;
    for (int k = 1; k < pass.layers; ++k) most = std::max(most, pass.layer[k].in_features());
    return pass.layers == 1 ? std::max(most, last.in_features()) : most;
}

// Whether any layer has lines that differ by the row of the pass.
inline bool lines_per_row(const Pass& pass) {
    for (int k = 0; k + 1 < pass.layers; ++k) {
        if (pass.layer[k].relu && pass.layer[k].around.row != 0) return true;
    }
    return false;
}

// An element of the row of C behind a lane.
template <class T, class Group>
__device__ __forceinline__ T specified(const Pass& pass, const Group& group, int lane, std::int64_t unit) {
    if (lane >= group.lanes) return T(0);
    const T a = slice<T>(pass.C, group.row(pass, lane), group.b)[unit];  // .member is the row stride
    return group.negated(pass, lane) ? -a : a;
}

// Rows of C as coefficients of the last layer's outputs.
template <class T, class Group, class Visit>
__device__ void seed_specification(const Pass& pass, const Group& group, T* to, Visit& visit) {
    constexpr int LANES = Group::LANES, WORKERS = WORKERS_OF<LANES>;
    const Layer& last = pass.layer[pass.layers - 1];
    const int quad = quad_of_thread<LANES>(), area = last.out_height * last.out_width;
    for (std::int64_t unit = worker_of_thread<LANES>(); unit < last.out_features(); unit += WORKERS) {
        const T bias = bias_of<T>(last, group.p, static_cast<int>(unit / area));
        for (int v = 0; v < QUAD; ++v) {
            const T a = specified<T>(pass, group, quad + v, unit);
            visit.constant(v, a * bias);
            to[unit * LANES + quad + v] = a;
        }
    }
}

// The first input of the last layer that a row of its outputs reads, and the row's channel.
struct Source {
    int y, x;
    std::int64_t channel;

    __device__ __forceinline__ Source(const Layer& last, int row) {
        const int area = last.out_height * last.out_width, position = row % area;
        channel = row / area;
        y = position / last.out_width * last.stride_height - last.pad_height;
        x = position % last.out_width * last.stride_width - last.pad_width;
    }
};

// Identity rows through the last layer: a row's coefficients are its weights, where its own window is.
template <class T, class Group, class Visit>
__device__ void seed_rows(const Pass& pass, const Group& group, const Window& in, T* to, Visit& visit) {
    constexpr int LANES = Group::LANES, WORKERS = WORKERS_OF<LANES>;
    const int k = pass.layers - 1;
    const Layer& last = pass.layer[k];
    const T* weight = weight_of<T>(last, group.p);
    const int quad = quad_of_thread<LANES>(), worker = worker_of_thread<LANES>();
    const int taps = last.kernel_height * last.kernel_width;
    int y[QUAD], x[QUAD];
    std::int64_t channel[QUAD];
    bool negated[QUAD];
    for (int v = 0; v < QUAD; ++v) {
        const bool there = quad + v < group.lanes;
        const Source source(last, there ? group.row(pass, quad + v) : 0);
        y[v] = source.y, x[v] = source.x, channel[v] = source.channel;
        negated[v] = there && group.negated(pass, quad + v);
        const T bias = bias_of<T>(last, group.p, static_cast<int>(channel[v]));
        if (worker == 0 && there) visit.constant(v, negated[v] ? -bias : bias);
    }
    for (std::int64_t item = worker; item < std::int64_t(last.in_channels) * in.area(); item += WORKERS) {
        const int c = static_cast<int>(item / in.area()), pixel = static_cast<int>(item % in.area());
        const int iy = in.y0 + pixel / in.width(), ix = in.x0 + pixel % in.width();
        Lanes<T> a;
        for (int v = 0; v < QUAD; ++v) {
            const int ky = iy - y[v], kx = ix - x[v];
            const bool inside =
                quad + v < group.lanes && ky >= 0 && ky < last.kernel_height && kx >= 0 && kx < last.kernel_width;
            T w = T(0);
            if (inside) w = weight[(channel[v] * last.in_channels + c) * taps + ky * last.kernel_width + kx];
            a.at[v] = negated[v] ? -w : w;
        }
        visit(k, c, iy, ix, item, a);
        lanes_at<LANES>(to, item, quad) = a;
    }
}

// Coefficients of layer k's outputs (in window out) to those of its inputs (in window in), CHANNELS of them at a time.
template <class T, int CHANNELS, class Group, class Visit>
__device__ void step(const Pass& pass, const Group& group, int k, const Window& out, const Window& in, const T* from,
                     T* to, Visit& visit) {
    constexpr int LANES = Group::LANES, WORKERS = WORKERS_OF<LANES>;
    const Layer& layer = pass.layer[k];
    const T* weight = weight_of<T>(layer, group.p);
    const int quad = quad_of_thread<LANES>();
    const int taps = layer.kernel_height * layer.kernel_width;
    const std::int64_t next_out = std::int64_t(layer.in_channels) * taps;  // weights of one output channel
    const std::int64_t blocks = divide_up(layer.in_channels, CHANNELS);
    for (std::int64_t item = worker_of_thread<LANES>(); item < blocks * in.area(); item += WORKERS) {
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
            const std::int64_t at = std::int64_t(first + i) * in.area() + pixel;
            visit(k, first + i, py - layer.pad_height, px - layer.pad_width, at, a);
            if (k > 0) lanes_at<LANES>(to, at, quad) = a;
        }
    }
}

// The whole way down. from and to have room for the widest layer's inputs each; with C, for the last layer's outputs.
template <class T, class Group, class Visit>
__device__ void walk_down(const Pass& pass, const Group& group, T* from, T* to, Visit& visit) {
    int k = pass.layers - 1;
    Window out = whole_output(pass.layer[k]);
    if (pass.C.data != nullptr) {
        seed_specification(pass, group, from, visit);
    } else {
        const Layer& last = pass.layer[k];
        out = {last.out_height, 0, last.out_width, 0};
        for (int i = 0; i < group.lanes; i += group.step(pass)) {
            const int position = group.row(pass, i) % (last.out_height * last.out_width);
            out.y0 = min(out.y0, position / last.out_width), out.y1 = max(out.y1, position / last.out_width + 1);
            out.x0 = min(out.x0, position % last.out_width), out.x1 = max(out.x1, position % last.out_width + 1);
        }
        const Window in = inputs_of(last, out);
        visit.begin(k, in);
        seed_rows(pass, group, in, from, visit);
        out = in;
        --k;
    }
    for (; k >= 0; --k) {
        __syncthreads();
        const Layer& layer = pass.layer[k];
        if (k + 1 < pass.layers && !same_image(pass, k + 1)) out = whole_output(layer);
        const Window in = inputs_of(layer, out);
        visit.begin(k, in);
        if (layer.in_channels >= 5) {
            step<T, 8>(pass, group, k, out, in, from, to, visit);
        } else if (layer.in_channels >= 2) {
            step<T, 4>(pass, group, k, out, in, from, to, visit);
        } else {
            step<T, 1>(pass, group, k, out, in, from, to, visit);
        }
        out = in;
        T* swap = from;
        from = to, to = swap;
    }
}

}  // namespace glsk::cuda
