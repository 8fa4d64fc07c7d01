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
    const Layer& layer = pass.layer[k];
    const T* weight = weight_of<T>(layer, group.p);
    const int quad = quad_of_thread(), taps = layer.kernel_height * layer.kernel_width;
    const std::int64_t next_out = std::int64_t(layer.in_channels) * taps;
    const std::int64_t blocks = divide_up(layer.out_channels, CHANNELS);
    for (std::int64_t item = worker_of_thread(); item < blocks * out.area(); item += WORKERS) {
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
                    const Lanes<T> four = lanes_at(from, at, quad);
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
            lanes_at(to, std::int64_t(first + i) * out.area() + pixel, quad) = value;
        }
    }
}

// Adds the lanes' products of layer k's coefficients (of its outputs, in window out, with the upstream gradient) and
// values (of its inputs, in window in) to the gradient of its weight; the bias is a weight whose input is one.
template <class T, class Group>
__device__ void add_products(const Pass& pass, const Group& group, int k, const Window& in, const Window& out,
                             const T* coefficients, const T* values, T* gradient) {
    constexpr int OUT = 4;
    const Layer& layer = pass.layer[k];
    const Parameters parameters(pass, k);
    const int taps = layer.kernel_height * layer.kernel_width;
    const std::int64_t weights = std::int64_t(layer.in_channels) * taps, items = weights + 1;
    const std::int64_t blocks = divide_up(layer.out_channels, OUT), area = out.area();
    for (std::int64_t job = threadIdx.x; job < blocks * items; job += THREADS) {
        const std::int64_t item = job % items;
        const int first = static_cast<int>(job / items) * OUT, channels = min(OUT, layer.out_channels - first);
        const bool is_bias = item == weights;
        const int c = static_cast<int>(item / taps), tap = static_cast<int>(item % taps);
        const int ky = tap / layer.kernel_width, kx = tap % layer.kernel_width;
        T sum[OUT] = {};
        for (int pixel = 0; pixel < area; ++pixel) {
            const int y = (out.y0 + pixel / out.width()) * layer.stride_height - layer.pad_height + ky;
            const int x = (out.x0 + pixel % out.width()) * layer.stride_width - layer.pad_width + kx;
            const bool inside = y >= 0 && y < layer.in_height && x >= 0 && x < layer.in_width;
            if (!is_bias && !inside) continue;
            const std::int64_t at = (std::int64_t(c) * in.height() + y - in.y0) * in.width() + x - in.x0;
            for (int quad = 0; quad < group.lanes; quad += QUAD) {
                Lanes<T> value = {{T(1), T(1), T(1), T(1)}};
                if (!is_bias) value = lanes_at(values, at, quad);
#pragma unroll
                for (int i = 0; i < OUT; ++i) {
                    if (i >= channels) continue;
                    const Lanes<T> a = lanes_at(coefficients, std::int64_t(first + i) * area + pixel, quad);
#pragma unroll
                    for (int v = 0; v < QUAD; ++v) sum[i] += a.at[v] * value.at[v];
                }
            }
        }
#pragma unroll
        for (int i = 0; i < OUT; ++i) {
            if (i >= channels) continue;
            T& to = is_bias ? gradient[parameters.bias + first + i]
                            : gradient[parameters.weight + (first + i) * weights + item];
            to += sum[i];
        }
    }
}

// The same for identity rows: each lane has one output of the last layer, whose coefficient is its sign.
template <class T, class Group>
__device__ void add_own_products(const Pass& pass, const Group& group, const Window& in, const T* upstream,
                                 const T* values, T* gradient) {
    const int k = pass.layers - 1;
    const Layer& last = pass.layer[k];
    const Parameters parameters(pass, k);
    const int taps = last.kernel_height * last.kernel_width;
    const std::int64_t weights = std::int64_t(last.in_channels) * taps;
    for (std::int64_t item = threadIdx.x; item <= weights; item += THREADS) {
        const int c = static_cast<int>(item / taps), tap = static_cast<int>(item % taps);
        for (int lane = 0; lane < group.lanes; ++lane) {
            const Source source(last, group.row(pass, lane));
            const T own = group.negated(pass, lane) ? -upstream[lane] : upstream[lane];
            if (item == weights) {
                gradient[parameters.bias + source.channel] += own;
                continue;
            }
            const int y = source.y + tap / last.kernel_width, x = source.x + tap % last.kernel_width;
            if (y < 0 || y >= last.in_height || x < 0 || x >= last.in_width) continue;
            const std::int64_t at = (std::int64_t(c) * in.height() + y - in.y0) * in.width() + x - in.x0;
            gradient[parameters.weight + source.channel * weights + item] += own * values[at * LANES + lane];
        }
    }
}

}  // namespace glsk::cuda
