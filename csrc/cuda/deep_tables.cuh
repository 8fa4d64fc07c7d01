// What a thread block of the deep kernel prepares: the member's weights as operands, in shared memory; and for the
// sample what its coefficients go through, in global memory, from where it stays in the L1 and L2 caches.
#pragma once

#include "deep_steps.cuh"
#include "strided.cuh"

namespace glsk::cuda::deep {

// Operands of the middle products, pairs [group of the level below][group][ky][kx][lane], and of the first layer's,
// [image channel][6][lane]: see deep_image.cuh.
template <class Product>
__device__ void prepare_weights(const Pass& pass, const Shape& shape, std::int64_t p, unsigned char* memory,
                                const Scales& scales) {
    for (int k = 1; k <= shape.top; ++k) {
        const Layer& layer = pass.layer[k];
        const float* weight = weight_of<float>(layer, p);
        uint4* to = reinterpret_cast<uint4*>(memory + shape.level[k].weights);
        const int groups = shape.level[k].groups, size = shape.level[k - 1].groups * groups * KERNEL * KERNEL * LANES;
        const float scale = Product::SCALED ? scales.weights[k] : 1.f;
        for (int i = threadIdx.x; i < size; i += blockDim.x) {
            const int lane = i % LANES, kx = i / LANES % KERNEL, ky = i / (KERNEL * LANES) % KERNEL;
            const int above = i / (KERNEL * KERNEL * LANES) % groups, below = i / (KERNEL * KERNEL * LANES) / groups;
            typename Product::Pair pair;
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                pair.half[half] = operand<Product>(lane, [&](int channel, int n) {
                    const int from = above * GROUP + channel, in = below * GROUP + half * 8 + n;
                    const bool inside = from < layer.out_channels && in < layer.in_channels &&
                                        ky < layer.kernel_height && kx < layer.kernel_width;
                    const std::int64_t at = std::int64_t(from) * layer.in_channels + in;
                    return inside ? weight[(at * layer.kernel_height + ky) * layer.kernel_width + kx] * scale : 0.f;
                });
            }
            Product::write_pair(pair, to + i / LANES * Product::WORDS * LANES + lane);
        }
    }
    const Layer& layer = pass.layer[0];
    const float* weight = weight_of<float>(layer, p);
    auto* const to = reinterpret_cast<typename Product::Operand*>(memory + shape.first);
    const float scale = Product::SCALED ? scales.weights[0] : 1.f;
    const float scale_of_biases = Product::SCALED ? scales.first_biases : 1.f;
    for (int i = threadIdx.x; i < layer.in_channels * 6 * LANES; i += blockDim.x) {
        const int lane = i % LANES, which = i / LANES % 6, in = i / LANES / 6;
        to[i] = operand<Product>(lane, [&](int channel, int n) {
            const int turn = n / 2;
            if (which >= 3 && turn == 3) {  // once, in the first of the two columns
                const bool once = in == 0 && n % 2 == 0 && channel < layer.out_channels;
                return once ? bias_of<float>(layer, p, channel) * scale_of_biases : 0.f;
            }
            const int slot = which < 3 ? which : (turn + 6 - which) % 3;
            const int ky = which < 3 ? turn : 4, kx = 2 * slot + n % 2;
            const bool inside = channel < layer.out_channels && ky < layer.kernel_height && kx < layer.kernel_width;
            const std::int64_t at = std::int64_t(channel) * layer.in_channels + in;
            return inside ? weight[(at * layer.kernel_height + ky) * layer.kernel_width + kx] * scale : 0.f;
        });
    }
}

// What the units of a level go through: calls store(its place in a table [y][x][channel], slope and intercept of the
// upper line). No line has a steeper one.
template <class Store>
__device__ __forceinline__ void lines_of_level(const Pass& pass, int k, int channels, std::int64_t p, std::int64_t b,
                                               Store store) {
    const Layer& layer = pass.layer[k];
    const int area = layer.out_height * layer.out_width;
    const float* lower = lower_of<float>(layer.around, p, b);
    const float* upper = upper_of<float>(layer.around, p, b);
    batched<4>(
        Strided(1, area), channels,
        [&](int channel, int, int position) {
            if (channel >= layer.out_channels) return float2{-1.f, -1.f};  // always inactive
            if (!layer.relu) return float2{1.f, 1.f};
            return float2{lower[channel * area + position], upper[channel * area + position]};
        },
        [&](int index, const float2& bounds) {
            const Lines<float> lines = relu_lines(pass.rule, bounds.x, bounds.y);
            store(index % area * channels + index / area, lines.upper_slope, lines.upper_intercept);
        });
}

// Tables [y][x][channel] of every level: slope and intercept of the upper line; and the box, [image channel][row][pair
// of columns] in padded coordinates: of both columns what any coefficient meets for a lower bound, and what one < 0
// meets on top of it; the last row is zero.
template <class Product>
__device__ void prepare_tables(const Pass& pass, const Shape& shape, std::int64_t p, std::int64_t b, float4* tables,
                               Scales& scales, float* scratch) {
    for (int k = 0; k <= shape.top; ++k) {
        const int channels = shape.level[k].groups * GROUP;
        float scale = 1.f;
        if (Product::SCALED) {
            float most = 0.f;
            lines_of_level(pass, k, channels, p, b,
                           [&](int, float, float intercept) { most = larger(most, fabsf(intercept)); });
            const int shift = shift_to(LARGEST, largest_of_block(most, scratch));
            if (threadIdx.x == 0) scales.intercepts[k] = shift;
            scale = power_of_two(shift);
        }
        float4* const table = tables + shape.level[k].table;
        lines_of_level(pass, k, channels, p, b, [&](int at, float slope, float intercept) {
            StepsOf<Product, false>::store(table, at, slope, intercept * scale);
        });
    }
    const Layer& layer = pass.layer[0];
    const auto at = [&](int channel, int row, int column) {
        if (row < 0 || row >= layer.in_height || column < 0 || column >= layer.in_width) return float2{0.f, 0.f};
        const int input = (channel * layer.in_height + row) * layer.in_width + column;
        return float2{slice<float>(pass.x_lower, p, b)[input], slice<float>(pass.x_upper, p, b)[input]};
    };
    const float meets = Product::SCALED ? scales.box : 1.f;
    float4* const box = tables + shape.box;
    for (Strided i(shape.image_rows, shape.pairs); i.outer < layer.in_channels; i.next()) {
        const bool last = i.middle == shape.image_rows - 1;
        const int row = last ? -1 : i.middle - layer.pad_height, column = STRIDE * i.inner - layer.pad_width;
        const float2 left = at(i.outer, row, column), right = at(i.outer, row, column + 1);
        box[i.index] = float4{left.x * meets, left.y * meets, right.x * meets, right.y * meets};
    }
}

}  // namespace glsk::cuda::deep
