// The gradient of a pass for one group of lanes: down as in the general pass, up again, and the products.
#pragma once

#include "general_gradient.cuh"

namespace glsk::cuda {

// A group of at most L lanes, whose coefficients of every layer lie in a workspace of its thread block.
template <int L>
struct BackwardGroup {
    static constexpr int LANES = L;
    std::int64_t p, b;
    int lanes, first;
    const int*
        words;  // of each lane: twice its row's place in the visiting order after first, and 1 for an upper bound

    __device__ int row(const Pass& pass, int lane) const { return row_at(pass, first + words[lane] / 2); }
    __device__ bool negated(const Pass&, int lane) const { return words[lane] % 2 == 1; }
    __device__ int step(const Pass&) const { return 1; }
};

// Units of the windows of all levels (every layer's inputs, and C's outputs): of the largest, and in all. one_position:
// rows of one position of the last layer's outputs only.
struct Extent {
    std::int64_t widest, all;

    explicit Extent(const Pass& pass, bool one_position) {
        const Layer& last = pass.layer[pass.layers - 1];
        const bool own = pass.C.data == nullptr;
        widest = all = own ? 0 : last.out_features();
        std::int64_t height = own && one_position ? 1 : last.out_height;
        std::int64_t width = own && one_position ? 1 : last.out_width;
        for (int k = pass.layers - 1; k >= 0; --k) {
            const Layer& layer = pass.layer[k];
            if (k + 1 < pass.layers && pass.layer[k + 1].in_channels != layer.out_channels) {
                height = layer.out_height, width = layer.out_width;  // beneath a linear layer: the whole image
            }
            height = std::min<std::int64_t>(layer.in_height, (height - 1) * layer.stride_height + layer.kernel_height);
            width = std::min<std::int64_t>(layer.in_width, (width - 1) * layer.stride_width + layer.kernel_width);
            if (!(own && one_position)) height = layer.in_height, width = layer.in_width;
            const std::int64_t units = layer.in_channels * height * width;
            widest = std::max(widest, units), all += units;
        }
    }
};

// What a thread block works in: coefficients or values of two levels, coefficients of all, and sums for the parameters.
template <class T>
struct Workspace {
    T *low, *high, *saved, *parameters;
};

// What a group's threads share beside it.
template <class T>
struct Shared {
    T *upstream, *parts;
    Window* windows;  // of every layer's inputs
    Source* sources;  // of every lane, without C
};

// Coefficients of layer k's inputs among all that are saved, the last layer's first; k = layers: of its outputs.
template <int LANES, class T>
__device__ T* saved_at(const Pass& pass, const Window* windows, T* saved, int k) {
    if (pass.C.data != nullptr && k < pass.layers) saved += pass.layer[pass.layers - 1].out_features() * LANES;
    for (int j = pass.layers - 1; j > k; --j)
        saved += std::int64_t(pass.layer[j].in_channels) * windows[j].area() * LANES;
    return saved;
}

// The way down: coefficients are kept before they go through the lines.
template <class T, bool PER_ROW, class Group>
struct Trace {
    const Pass& pass;
    const Group& group;
    T* saved;
    Window* windows;
    T* level;

    __device__ void constant(int, T) {}
    __device__ void begin(int k, const Window& window) {
        if (threadIdx.x == 0) windows[k] = window;
        level = saved;
        saved += std::int64_t(pass.layer[k].in_channels) * window.area() * Group::LANES;
    }
    __device__ void operator()(int k, int channel, int y, int x, std::int64_t at, Lanes<T>& a) {
        const int quad = quad_of_thread<Group::LANES>();
        lanes_at<Group::LANES>(level, at, quad) = a;
        if (k == 0) return;
        const std::int64_t unit = input_of(pass.layer[k], channel, y, x);
        for (int v = 0; v < QUAD; ++v) {
            const int row = PER_ROW ? group.row(pass, min(quad + v, group.lanes - 1)) : 0;
            const Lines<T> lines = lines_of<T>(pass.layer[k - 1], pass.rule, group.p, group.b, unit, row);
            a.at[v] *= a.at[v] < T(0) ? lines.upper_slope : lines.lower_slope;
        }
    }
};

template <class T, class Group>
__device__ void rise(const Pass& pass, const Group& group, int k, const Window& in, const Window& out, const T* from,
                     T* to) {
    if (pass.layer[k].out_channels >= 5) {
        rise<T, 8>(pass, group, k, in, out, from, to);
    } else {
        rise<T, 4>(pass, group, k, in, out, from, to);
    }
}

template <class T, bool PER_ROW, class Group>
__device__ void back_propagate(const Pass& pass, const PassGradient& gradient, const Group& group,
                               const Shared<T>& shared, const Workspace<T>& own) {
    constexpr int LANES = Group::LANES;
    const int last = pass.layers - 1;
    const Window* windows = shared.windows;
    const T* upstream = shared.upstream;
    T *low = own.low, *high = own.high;
    T* const first = own.saved + (pass.C.data != nullptr ? pass.layer[last].out_features() * LANES : 0);
    Trace<T, PER_ROW, Group> trace = {pass, group, first, shared.windows, nullptr};
    walk_down(pass, group, low, high, trace);
    __syncthreads();
    start_at_corner(pass, gradient, group, windows[0], upstream, saved_at<LANES>(pass, windows, own.saved, 0), low);
    const bool only_box = gradient.parameters == nullptr && gradient.C == nullptr && gradient.bounds == nullptr &&
                          gradient.lines == nullptr;
    for (int k = 0; k < last && !only_box; ++k) {
        __syncthreads();
        const Window in = windows[k], out = same_image(pass, k + 1) ? windows[k + 1] : whole_output(pass.layer[k]);
        rise(pass, group, k, in, out, low, high);
        __syncthreads();
        T* coefficients = saved_at<LANES>(pass, windows, own.saved, k + 1);
        through_lines<T, PER_ROW>(pass, gradient, group, k, out, upstream, coefficients, high);
        __syncthreads();
        if (gradient.parameters != nullptr) {
            add_products<T, LANES>(pass, k, in, out, coefficients, low, own.parameters, shared.parts);
        }
        T* swap = low;
        low = high, high = swap;
    }
    __syncthreads();
    if (only_box) return;
    if (pass.C.data == nullptr) {
        if (gradient.parameters != nullptr) {
            add_own_products(pass, group, windows[last], upstream, shared.sources, low, own.parameters);
        }
    } else {
        const Window out = whole_output(pass.layer[last]);
        rise(pass, group, last, windows[last], out, low, high);
        __syncthreads();
        T* coefficients = saved_at<LANES>(pass, windows, own.saved, pass.layers);
        through_specification(pass, gradient, group, upstream, coefficients, high);
        __syncthreads();
        if (gradient.parameters != nullptr) {
            add_products<T, LANES>(pass, last, windows[last], out, coefficients, low, own.parameters, shared.parts);
        }
    }
    __syncthreads();  // the next group overwrites it all
}

}  // namespace glsk::cuda
