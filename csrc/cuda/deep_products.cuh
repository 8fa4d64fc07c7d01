// The products of the deep kernel, in two precisions, and coefficients and weights as their operands.
//
// Fragment: 16 rows x 16 channels of coefficients of one pixel, the left operand of a product; a lane's part is WORDS
// words of 16 bytes. Operand: a lane's part of [16 x 8] weights, the right one. Pair: two of those, for both halves of
// 16 channels; it takes WORDS words too. SCALED: whether operands are scaled by powers of two
// (deep_scales.cuh).
#pragma once

#include <type_traits>

#include "platform.cuh"

namespace glsk::cuda::deep {

constexpr int LANES = 32;

// Three products of bfloat16, high high + high low + low high; what is dropped, low times low, is 2^-18 of it.
struct Bf16x3 {
    static constexpr int WORDS = 2;
    static constexpr bool SCALED = false;

    using Operand = uint4;  // high parts in x, y, low parts in z, w
    struct Fragment {
        uint4 high, low;
    };
    struct Pair {
        Operand half[2];
    };

    static __device__ __forceinline__ void split(float a, float b, unsigned& high, unsigned& low) {
        high = pack_bf16(a, b);
        low = pack_bf16(a - __uint_as_float(high << 16), b - __uint_as_float(high & 0xffff0000u));
    }
    // Of coefficients [half of the channels][as in the accumulator of a product].
    static __device__ __forceinline__ Fragment fragment(const float (&a)[2][4]) {
        Fragment result;
        split(a[0][0], a[0][1], result.high.x, result.low.x);
        split(a[0][2], a[0][3], result.high.y, result.low.y);
        split(a[1][0], a[1][1], result.high.z, result.low.z);
        split(a[1][2], a[1][3], result.high.w, result.low.w);
        return result;
    }
    static __device__ __forceinline__ Fragment read(const uint4* at) { return {at[0], at[LANES]}; }
    static __device__ __forceinline__ void write(const Fragment& fragment, uint4* to) {
        to[0] = fragment.high, to[LANES] = fragment.low;
    }
    static __device__ __forceinline__ Operand operand(float k0, float k1, float k8, float k9) {
        Operand b;
        split(k0, k1, b.x, b.z);
        split(k8, k9, b.y, b.w);
        return b;
    }
    static __device__ __forceinline__ Pair read_pair(const uint4* at) { return {{at[0], at[LANES]}}; }
    static __device__ __forceinline__ void write_pair(const Pair& pair, uint4* to) {
        to[0] = pair.half[0], to[LANES] = pair.half[1];
    }

    template <int COUNT>
    static __device__ __forceinline__ void multiply(float (*const (&d)[COUNT])[4], const float (*const (&c)[COUNT])[4],
                                                    const Fragment& a, const Operand (&b)[COUNT]) {
#pragma unroll
        for (int i = 0; i < COUNT; ++i) mma_bf16(*d[i], a.low, b[i].x, b[i].y, *c[i]);
#pragma unroll
        for (int i = 0; i < COUNT; ++i) mma_bf16(*d[i], a.high, b[i].z, b[i].w, *d[i]);
#pragma unroll
        for (int i = 0; i < COUNT; ++i) mma_bf16(*d[i], a.high, b[i].x, b[i].y, *d[i]);
    }
};

// One product of FP16, both operands rounded to nearest: about 2^-11.
struct Fp16 {
    static constexpr int WORDS = 1;
    static constexpr bool SCALED = true;

    using Operand = uint2;
    using Fragment = uint4;
    struct Pair {
        Operand half[2];
    };

    static __device__ __forceinline__ Fragment fragment(const float (&a)[2][4]) {
        return {pack_fp16(a[0][0], a[0][1]), pack_fp16(a[0][2], a[0][3]), pack_fp16(a[1][0], a[1][1]),
                pack_fp16(a[1][2], a[1][3])};
    }
    static __device__ __forceinline__ Fragment read(const uint4* at) { return at[0]; }
    static __device__ __forceinline__ void write(const Fragment& fragment, uint4* to) { to[0] = fragment; }
    static __device__ __forceinline__ Operand operand(float k0, float k1, float k8, float k9) {
        return {pack_fp16(k0, k1), pack_fp16(k8, k9)};
    }
    static __device__ __forceinline__ Pair read_pair(const uint4* at) {
        const uint4 both = at[0];
        return {{{both.x, both.y}, {both.z, both.w}}};
    }
    static __device__ __forceinline__ void write_pair(const Pair& pair, uint4* to) {
        to[0] = {pair.half[0].x, pair.half[0].y, pair.half[1].x, pair.half[1].y};
    }

    template <int COUNT>
    static __device__ __forceinline__ void multiply(float (*const (&d)[COUNT])[4], const float (*const (&c)[COUNT])[4],
                                                    const Fragment& a, const Operand (&b)[COUNT]) {
#pragma unroll
        for (int i = 0; i < COUNT; ++i) mma_fp16(*d[i], a, b[i].x, b[i].y, *c[i]);
    }
};

// COUNT products at once, d[i] = c[i] + a b[i]; d[i] may be c[i + 1] or later.
template <class Product, int COUNT>
__device__ __forceinline__ void multiply(float (*const (&d)[COUNT])[4], const float (*const (&c)[COUNT])[4],
                                         const typename Product::Fragment& a,
                                         const typename Product::Operand (&b)[COUNT]) {
    Product::multiply(d, c, a, b);
}

// The lane's part of a right operand; value(k, n) is an element.
template <class Product, class Value>
__device__ __forceinline__ typename Product::Operand operand(int lane, Value value) {
    const int k = lane % 4 * 2, n = lane / 4;
    return Product::operand(value(k, n), value(k + 1, n), value(k + 8, n), value(k + 9, n));
}

}  // namespace glsk::cuda::deep
