// Where a tile of rows begins: the windows it depends on, and its coefficients of the top level, a row of pixels at a
// time: weights of a linear layer, or of a convolution, or C times those.
#pragma once

#include "deep_steps.cuh"

namespace glsk::cuda::deep {

// The inputs that a window of outputs reads.
__device__ __forceinline__ Window inputs_of(const Layer& layer, const Window& out) {
    if (out.y0 == out.y1 || out.x0 == out.x1) return {0, 0, 0, 0};
    Window in;
    in.y0 = max(0, out.y0 * layer.stride_height - layer.pad_height);
    in.x0 = max(0, out.x0 * layer.stride_width - layer.pad_width);
    in.y1 = min(layer.in_height, (out.y1 - 1) * layer.stride_height - layer.pad_height + layer.kernel_height);
    in.x1 = min(layer.in_width, (out.x1 - 1) * layer.stride_width - layer.pad_width + layer.kernel_width);
    in.y1 = max(in.y0, in.y1), in.x1 = max(in.x0, in.x1);  // padding alone reads nothing
    return in;
}

// Finds the tile's windows of all levels. Rows of a convolution, most often of one position, have small ones.
__device__ void find_windows(const Pass& pass, const Shape& shape, const Tile& tile) {
    __syncwarp();  // the warp's tile before has been read to its end
    const Layer& last = pass.layer[pass.layers - 1];
    Window window = {0, shape.level[shape.top].height, 0, shape.level[shape.top].width};
    if (!last.is_linear()) {
        Window out = {last.out_height, 0, last.out_width, 0};
        const int area = last.out_height * last.out_width;
        for (int i = 0; i < tile.count; ++i) {
            const int y = tile.rows[i] % area / last.out_width, x = tile.rows[i] % last.out_width;
            out.y0 = min(out.y0, y), out.y1 = max(out.y1, y + 1);
            out.x0 = min(out.x0, x), out.x1 = max(out.x1, x + 1);
        }
        window = inputs_of(last, out);
    }
    for (int k = shape.top;; --k) {
        if (tile.lane == 0) tile.window(shape, k) = window;
        if (k == 0) break;
        window = inputs_of(pass.layer[k], window);
    }
    __syncwarp();
}

// Row y of the top level, into its ring. value(row, channel, x) is a row's coefficient; -1 is no row.
template <class Product, class Words, class Value>
__device__ __forceinline__ void seed_row(const Pass& pass, const Shape& shape, const Tile& tile, int y, Words* ring,
                                         Sums& sums, Value value) {
    using Steps = StepsOf<Product, true>;
    const Layer& layer = pass.layer[shape.top];
    const Level& top = shape.level[shape.top];
    const Window window = tile.window(shape, shape.top);
    const int first = tile.row(pass, 0), second = tile.row(pass, 1);
    constexpr int FRAGMENT = Product::WORDS * LANES;
    Words* to = ring + (y & 1) * top.width * top.groups * FRAGMENT + tile.lane;
    const float scale = Product::SCALED ? power_of_two(shift_of(pass, tile, first)) : 1.f;
    const float second_scale = Product::SCALED && pass.signs == 1 ? power_of_two(shift_of(pass, tile, second)) : 1.f;
#pragma unroll 1
    for (int group = 0; group < top.groups; ++group) {
        Steps steps = Steps::begin(pass, tile, shape.top, group);
        for (int x = window.x0; x < window.x1; ++x) {
            const typename Steps::Entries entries(tile.table<Steps>(top, (y * top.width + x) * top.groups + group));
            float a[2][4];
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const int channel = group * GROUP + channel_of(tile.lane, e);
                const bool inside = channel < layer.out_channels;
                float (&half)[4] = a[e / 2];
                half[e % 2] = inside && first >= 0 ? value(first, channel, x) * scale : 0.f;
                half[2 + e % 2] = -half[e % 2];
                if (pass.signs == 1) {
                    half[2 + e % 2] = inside && second >= 0 ? value(second, channel, x) * second_scale : 0.f;
                }
            }
            const typename Product::Fragment fragment = steps.through(a, entries, sums);
            Product::write(fragment, to + ((x - window.x0) * top.groups + group) * FRAGMENT);
        }
        steps.finish(tile, shape.top, sums);
    }
}

// The same, for what the rows of this pass are.
template <class Product, class Words>
__device__ __forceinline__ void seed_row(const Pass& pass, const Shape& shape, const Tile& tile, int y, Words* ring,
                                         Sums& sums) {
    const Layer& last = pass.layer[pass.layers - 1];
    const float* const weight = weight_of<float>(last, tile.p);
    const int height = shape.level[shape.top].height, width = shape.level[shape.top].width;
    if (pass.C.data != nullptr) {
        seed_row<Product>(pass, shape, tile, y, ring, sums, [&](int row, int channel, int x) {
            const float* const C = slice<float>(pass.C, row, tile.b);  // .member is the row stride
            const float* const column = weight + (channel * height + y) * width + x;
            float sum = 0.f;
#pragma unroll 1
            for (int i = 0; i < last.out_channels; ++i) sum += C[i] * column[std::int64_t(i) * last.in_channels];
            return sum;
        });
    } else if (last.is_linear()) {
        seed_row<Product>(pass, shape, tile, y, ring, sums, [&](int row, int channel, int x) {
            return weight[std::int64_t(row) * last.in_channels + (channel * height + y) * width + x];
        });
    } else {
        const int area = last.out_height * last.out_width;
        seed_row<Product>(pass, shape, tile, y, ring, sums, [&](int row, int channel, int x) {
            const int position = row % area;
            const int ky = y - position / last.out_width * last.stride_height + last.pad_height;
            const int kx = x - position % last.out_width * last.stride_width + last.pad_width;
            if (ky < 0 || ky >= last.kernel_height || kx < 0 || kx >= last.kernel_width) return 0.f;
            const std::int64_t at = std::int64_t(row / area) * last.in_channels + channel;
            return weight[(at * last.kernel_height + ky) * last.kernel_width + kx];
        });
    }
}

// The constant of one of the lane's rows from the last layer's bias.
__device__ __forceinline__ float last_bias(const Pass& pass, const Tile& tile, int row) {
    const Layer& last = pass.layer[pass.layers - 1];
    if (row < 0) return 0.f;
    if (pass.C.data == nullptr) return bias_of<float>(last, tile.p, row / (last.out_height * last.out_width));
    const float* C = slice<float>(pass.C, row, tile.b);
    float sum = 0.f;
    for (int i = 0; i < last.out_channels; ++i) sum += C[i] * bias_of<float>(last, tile.p, i);
    return sum;
}

// Adds up the lanes' sums and writes the rows' bounds.
template <class Product>
__device__ __forceinline__ void write_bounds(const Pass& pass, const Tile& tile, Sums& sums) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        sums.at[r] += __shfl_xor_sync(0xffffffffu, sums.at[r], 1);
        sums.at[r] += __shfl_xor_sync(0xffffffffu, sums.at[r], 2);
        const int row = tile.row(pass, r);
        if (tile.lane % 4 != 0 || row < 0) continue;
        if (Product::SCALED) sums.at[r] = unscaled(sums.at[r], shift_of(pass, tile, row));
        const float bias = last_bias(pass, tile, row);
        const std::int64_t at = (tile.p * pass.samples + tile.b) * pass.rows + row;
        if (r == 1 && pass.signs == 2) {
            static_cast<float*>(pass.upper)[at] = -sound(sums.at[r] - bias);
        } else {
            static_cast<float*>(pass.lower)[at] = sound(bias + sums.at[r]);
        }
    }
}

}  // namespace glsk::cuda::deep
