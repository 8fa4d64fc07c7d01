// The step of coefficients through a ReLU, and the constants that rows gain there: what a warp needs for one group of
// channels of a level, in float numbers or in halves.
//
// Steps: Entries are a lane's part of the lines of 16 channels of one pixel, loaded before they are needed. through()
// takes complete coefficients [half of the channels][as in the accumulator of a product] of a ReLU's outputs to those
// of its inputs, as an operand. finish() adds to the rows' sums what has not been added yet. WITH_BIASES: whether a row
// also gains the coefficients times the biases below; level 0 gains that in another way (deep_image.cuh).
#pragma once

#include "deep_scales.cuh"

namespace glsk::cuda::deep {

// The channel of a group that element e (0..3) of each of the lane's two rows belongs to.
__device__ __forceinline__ int channel_of(int lane, int e) { return e / 2 * 8 + lane % 4 * 2 + e % 2; }

// In float: a table holds slope and intercept of a channel's upper line. The lower line's slope is 1 where the upper
// one's is above 1/2, else 0.
template <bool WITH_BIASES>
struct FloatSteps {
    using Entry = float4;  // of two channels
    static constexpr int ENTRIES = GROUP / 2, NEXT = 4;

    // Writes what a unit's lines are; at: the unit's place among pixels of groups of channels.
    static __device__ __forceinline__ void store(float4* table, int at, float slope, float intercept) {
        reinterpret_cast<float2*>(table)[at] = float2{slope, intercept};
    }

    struct Entries {
        float4 half[2];

        __device__ __forceinline__ explicit Entries(const Entry* from) { half[0] = from[0], half[1] = from[NEXT]; }
    };

    float bias[4];

    static __device__ __forceinline__ FloatSteps begin(const Pass& pass, const Tile& tile, int level, int group) {
        FloatSteps steps;
        const Layer& layer = pass.layer[level];
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            const int channel = group * GROUP + channel_of(tile.lane, e);
            const bool has = WITH_BIASES && channel < layer.out_channels;
            steps.bias[e] = has ? bias_of<float>(layer, tile.p, channel) : 0.f;
        }
        return steps;
    }

    __device__ __forceinline__ Bf16x3::Fragment through(float (&a)[2][4], const Entries& entries, Sums& sums) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            const float4& four = entries.half[e / 2];
            const float upper_slope = e % 2 == 0 ? four.x : four.z, intercept = e % 2 == 0 ? four.y : four.w;
            const float lower_slope = upper_slope > 0.5f ? 1.f : 0.f, difference = upper_slope - lower_slope;
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                float& value = a[e / 2][2 * r + e % 2];
                const float negative = fminf(value, 0.f);  // of a NaN 0, but the product below keeps it
                sums.at[r] += negative * intercept;
                value = value * lower_slope + negative * difference;
            }
        }
        const Bf16x3::Fragment result = Bf16x3::fragment(a);
        if (WITH_BIASES) {
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                sums.at[0] += a[e / 2][e % 2] * bias[e], sums.at[1] += a[e / 2][2 + e % 2] * bias[e];
            }
        }
        return result;
    }

    __device__ __forceinline__ void finish(const Tile&, int, Sums&) const {}
};

// In halves, two channels at once. The constants are sums over 16 channels, too, so that tensor cores find them: the
// negative coefficients times the intercepts, and the coefficients below times the biases. All columns of those
// operands are the same, so each lane has the whole sum, of which a quarter is its part.
template <bool WITH_BIASES>
struct HalfSteps {
    using Entry = uint4;  // of four channels, as pairs: slopes in x, y, intercepts in z, w
    static constexpr int ENTRIES = GROUP / 4;
    static constexpr unsigned HALF = 0x3800;  // 1/2

    static __device__ __forceinline__ void store(float4* table, int at, float slope, float intercept) {
        unsigned both = pack_fp16(slope, intercept);
        if (slope > 0.5f && (both & 0xffff) == HALF) both += 1;  // the lower line's slope is still 1
        const int channel = at % GROUP, entry = at / GROUP * ENTRIES + channel % 8 / 2;
        auto* const to = reinterpret_cast<std::uint16_t*>(table) + entry * 8 + channel / 8 * 2 + channel % 2;
        to[0] = static_cast<std::uint16_t>(both & 0xffff), to[4] = static_cast<std::uint16_t>(both >> 16);
    }

    struct Entries {
        uint4 pairs;

        __device__ __forceinline__ explicit Entries(const Entry* from) : pairs(from[0]) {}
    };

    Fp16::Operand bias;
    float intercepts[4], biases[4];

    static __device__ __forceinline__ HalfSteps begin(const Pass& pass, const Tile& tile, int level, int group) {
        HalfSteps steps;
#pragma unroll
        for (int i = 0; i < 4; ++i) steps.intercepts[i] = steps.biases[i] = 0.f;
        if (WITH_BIASES) {
            const Layer& layer = pass.layer[level];
            const float scale = power_of_two(tile.scales->biases[level]);
            steps.bias = operand<Fp16>(tile.lane, [&](int k, int) {
                const int channel = group * GROUP + k;
                return channel < layer.out_channels ? bias_of<float>(layer, tile.p, channel) * scale : 0.f;
            });
        }
        return steps;
    }

    __device__ __forceinline__ Fp16::Fragment through(const float (&a)[2][4], const Entries& entries, Sums&) {
        constexpr unsigned HALVES = HALF << 16 | HALF;
        const Fp16::Fragment value = Fp16::fragment(a);
        const uint4& lines = entries.pairs;
        const unsigned lower[2] = {greater_fp16(lines.x, HALVES), greater_fp16(lines.y, HALVES)};
        const Fp16::Fragment negative = {negative_fp16(value.x), negative_fp16(value.y), negative_fp16(value.z),
                                         negative_fp16(value.w)};
        mma_fp16(intercepts, negative, lines.z, lines.w, intercepts);
        // A NaN is kept by the negative part.
        const Fp16::Fragment result = {fma_fp16(negative.x, lines.x, positive_product_fp16(value.x, lower[0])),
                                       fma_fp16(negative.y, lines.x, positive_product_fp16(value.y, lower[0])),
                                       fma_fp16(negative.z, lines.y, positive_product_fp16(value.z, lower[1])),
                                       fma_fp16(negative.w, lines.y, positive_product_fp16(value.w, lower[1]))};
        if (WITH_BIASES) mma_fp16(biases, result, bias.x, bias.y, biases);
        return result;
    }

    __device__ __forceinline__ void finish(const Tile& tile, int level, Sums& sums) const {
        const Scales& scales = *tile.scales;
        const float of_intercepts = 0.25f * power_of_two(scales.constants[level] - scales.intercepts[level]);
#pragma unroll
        for (int r = 0; r < 2; ++r) sums.at[r] += intercepts[2 * r] * of_intercepts;
        if (WITH_BIASES) {
            const float of_biases = 0.25f * power_of_two(scales.constants[level] - scales.biases[level]);
#pragma unroll
            for (int r = 0; r < 2; ++r) sums.at[r] += biases[2 * r] * of_biases;
        }
    }
};

template <class Product, bool WITH_BIASES>
using StepsOf = std::conditional_t<Product::SCALED, HalfSteps<WITH_BIASES>, FloatSteps<WITH_BIASES>>;

}  // namespace glsk::cuda::deep
