// Powers of two that keep FP16 operands within their range, whatever the weights are: a member's, known before its
// passes.
//
// A row is scaled so that its coefficients of the top level are at most 2^LARGEST, by the largest weight that can be
// among them. The weights of a middle layer are scaled so that the magnitudes of those which meet in one coefficient of
// the level below sum up to at most 1: then that coefficient is at most 2^LARGEST again. So no operand overflows: FP16
// ends at 2^16, and rounding adds 2^-10 a level. There is room below: numbers smaller than 2^-14 are wrong by 2^-25 at
// most. What only meets coefficients (intercepts, biases, the first layer's weights) has 2^LARGEST as its largest.
//
// Scaling changes no bit but those of denormals. The sums of the constants that rows gain are brought to one scale, of
// the row alone; where a factor for that would not be a float, or weights are not finite, it is NaN and so is every
// bound.
#pragma once

#include "deep.cuh"

namespace glsk::cuda::deep {

constexpr int LARGEST = 15;
constexpr int HEADROOM = 20;       // sums of the constants are smaller than the row by 2^-(LARGEST + HEADROOM)
constexpr int NO_SHIFT = 1 << 20;  // out of every range, also after adding some

// The n that brings a magnitude to (2^(most - 1), 2^most]; 0 if it is 0.
__device__ __forceinline__ int shift_to(int most, float magnitude) {
    const int exponent = static_cast<int>(__float_as_uint(magnitude) >> 23 & 255) - 127;
    if (exponent > 127) return NO_SHIFT;
    return magnitude == 0.f ? 0 : min(most - 1 - exponent, 126);
}

__device__ __forceinline__ float power_of_two(int n) {
    return __uint_as_float(n >= -126 && n <= 127 ? static_cast<unsigned>(n + 127) << 23 : 0x7fffffffu);
}

// The larger one, NaN if either is.
__device__ __forceinline__ float larger(float a, float b) { return a > b || a != a ? a : b; }

// The sum of the magnitudes of the weights that meet in a coefficient of the level below: of one channel and of rows
// and columns of one parity, since strides are 2.
__device__ __forceinline__ float sum_of_weights(const Layer& layer, const float* weight, int channel, int py, int px) {
    float sum = 0.f;
    for (int out = 0; out < layer.out_channels; ++out) {
        const float* const at =
            weight + (std::int64_t(out) * layer.in_channels + channel) * layer.kernel_height * layer.kernel_width;
        for (int y = py; y < layer.kernel_height; y += STRIDE) {
            for (int x = px; x < layer.kernel_width; x += STRIDE) sum += fabsf(at[y * layer.kernel_width + x]);
        }
    }
    return sum;
}

__device__ __forceinline__ float largest(const float* from, std::int64_t size, std::int64_t first, std::int64_t step) {
    float most = 0.f;
    for (std::int64_t i = first; i < size; i += step) most = larger(most, fabsf(from[i]));
    return most;
}

// The largest of what the threads of the block have. scratch: a float a warp.
__device__ __forceinline__ float largest_of_block(float mine, float* scratch) {
    const int warps = blockDim.x / LANES;
    for (int lanes = LANES / 2; lanes > 0; lanes /= 2) mine = larger(mine, __shfl_xor_sync(0xffffffffu, mine, lanes));
    if (threadIdx.x % LANES == 0) scratch[threadIdx.x / LANES] = mine;
    __syncthreads();
    for (int i = 0; i < warps; ++i) mine = larger(mine, scratch[i]);
    __syncthreads();
    return mine;
}

// Finds a member's scales: those in shared memory, and of each output of the last layer the largest weight.
__device__ void find_scales(const Pass& pass, const Shape& shape, std::int64_t p, Scales& scales, float* scratch,
                            float* most_of_last) {
    const int me = threadIdx.x, threads = blockDim.x;
    int scale = -LARGEST - HEADROOM;  // what brings a level's coefficients to the scale of the sums
    for (int k = shape.top; k >= 0; --k) {
        const Layer& layer = pass.layer[k];
        const float* const weight = weight_of<float>(layer, p);
        float most = 0.f, bias = 0.f;
        if (k > 0) {
            for (int i = me; i < layer.in_channels * STRIDE * STRIDE; i += threads) {
                most = larger(most, sum_of_weights(layer, weight, i / 4, i / 2 % 2, i % 2));
            }
        } else {
            const int size = layer.out_channels * layer.in_channels * layer.kernel_height * layer.kernel_width;
            most = largest(weight, size, me, threads);
        }
        for (int i = me; i < layer.out_channels; i += threads) bias = larger(bias, fabsf(bias_of<float>(layer, p, i)));
        const int shift = shift_to(k > 0 ? 0 : LARGEST, largest_of_block(most, scratch));
        const int shift_of_biases = shift_to(LARGEST, largest_of_block(bias, scratch));
        if (me == 0) {
            scales.weights[k] = power_of_two(shift);
            scales.constants[k] = scale, scales.biases[k] = shift_of_biases;
            if (k == 0) {
                scales.box = power_of_two(scale - shift);
                scales.first_biases = power_of_two(shift_of_biases);
                scales.first_constants = power_of_two(scale - shift_of_biases);
            }
        }
        scale -= shift;
    }
    const Layer& last = pass.layer[pass.layers - 1];
    const std::int64_t weights = std::int64_t(last.in_channels) * last.kernel_height * last.kernel_width;
    for (int out = me; out < last.out_channels; out += threads) {
        most_of_last[out] = largest(weight_of<float>(last, p) + out * weights, weights, 0, 1);
    }
    __syncthreads();
}

// The power of two that one of the tile's rows is scaled by.
__device__ __forceinline__ int shift_of(const Pass& pass, const Tile& tile, int row) {
    if (row < 0) return 0;
    const Layer& last = pass.layer[pass.layers - 1];
    if (pass.C.data == nullptr) {
        return shift_to(LARGEST, tile.most_of_last[row / (last.out_height * last.out_width)]);
    }
    const float* const C = slice<float>(pass.C, row, tile.b);
    float most = 0.f;
    for (int i = 0; i < last.out_channels; ++i) most += fabsf(C[i]) * tile.most_of_last[i];
    return shift_to(LARGEST, most);
}

// A row's sum of constants without its scale: twice half the way, since a factor might not be a float.
__device__ __forceinline__ float unscaled(float sum, int shift) {
    const int n = LARGEST + HEADROOM - shift;
    return sum * power_of_two(n / 2) * power_of_two(n - n / 2);
}

}  // namespace glsk::cuda::deep
