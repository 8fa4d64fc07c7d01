// What the files of the deep kernel share: where things lie in memory, and coefficients as operands of tensor cores.
//
// Level k is the output of layer k. A warp carries a tile of 16 one-sided rows (lane / 4 is the row g; g + 8 is the
// other one of the lane) from the top level, which the rows themselves read, to level 0 and the image.
#pragma once

#include "relaxation.cuh"

namespace glsk::cuda::deep {

constexpr int MAX_LEVELS = 5, MAX_WARPS = 8, MAX_CHUNK = 1024;
constexpr int ROWS = 16;              // one-sided rows of a tile
constexpr int GROUP = 16;             // channels of a fragment
constexpr int KERNEL = 4;             // side of the middle convolutions; smaller ones are filled up with zeros
constexpr int FIRST_KERNEL = 5;       // side of the first one
constexpr int LANES = 32;
constexpr int FRAGMENT = 2 * LANES;   // 16-byte words of 16 rows x 16 channels: the lanes' high parts, then low parts
constexpr int STRIDE = 2;
constexpr int ENTRIES = GROUP / 2;    // float4s of a table for a pixel's group

struct Level {
    int height, width, groups;  // groups: of GROUP channels
    unsigned weights;           // bytes from the start of shared memory: the operand of the product down from here
    unsigned ring;              // bytes from a warp's part: two rows of coefficients
    unsigned table;             // float2s from the start of a block's tables: what a coefficient here goes through
};

// Where everything is, for one call.
struct Shape {
    int top;                   // the level that the rows read
    int warps, chunk, chunks;  // chunk: rows of a job
    int spilled;               // whether the top level's ring is in global memory
    int image_rows, pairs;     // that level 0 reaches, in padded coordinates, and a row of zeros; pairs of columns
    unsigned first;            // bytes: the first convolution's operand
    unsigned own, own_bytes;   // the warps' parts begin at own
    unsigned windows, sums;    // bytes from a warp's part
    unsigned list, counts, total;
    unsigned box;              // float4s from the start of a block's tables
    unsigned table_words, spill_words;  // 16-byte words of global memory: of a block's tables, of a warp's ring
    Level level[MAX_LEVELS];

    Shape(const Pass& pass, int warp_count, bool spill, int rows_of_a_job) {
        top = pass.layers - 2;
        warps = warp_count, spilled = spill, chunk = rows_of_a_job, chunks = divide_up(pass.rows, chunk);
        const Layer& image = pass.layer[0];
        image_rows = STRIDE * image.out_height + FIRST_KERNEL - STRIDE + 1;
        pairs = image.out_width + 2;
        unsigned shared = 0, units = 0;
        own_bytes = 0, spill_words = 0;
        for (int k = 0; k <= top; ++k) {
            const Layer& layer = pass.layer[k];
            Level& at = level[k];
            at = {layer.out_height, layer.out_width, divide_up(layer.out_channels, GROUP), shared, own_bytes, units};
            units += at.height * at.width * at.groups * GROUP;
            if (k == 0) continue;
            shared += at.groups * level[k - 1].groups * KERNEL * KERNEL * 2 * LANES * 16;
            const unsigned ring = 2u * at.width * at.groups * FRAGMENT * 16;
            if (k == top && spill) {
                spill_words = ring / 16;
            } else {
                own_bytes += ring;
            }
        }
        box = units / 2;  // a multiple of GROUP, in float4s
        table_words = box + image.in_channels * image_rows * pairs;
        first = shared;
        own = first + image.in_channels * 6 * LANES * 16;
        windows = own_bytes;
        sums = windows + (top + 1) * 16;
        own_bytes = sums + image.in_channels * 3 * sum_pitch() * 4;
        list = own + warps * own_bytes;
        counts = list + chunk * 4;
        total = counts + (warps * LANES + 1) * 4;
    }

    // Floats of one image row of one tile that is not complete yet: [pair][row of the tile][column of the pair], and
    // some, so that the four image rows that a warp's lanes are at begin in different banks.
    __host__ __device__ int sum_pitch() const { return pairs * ROWS * 2 + 8; }
};

// Units [y0, y1) x [x0, x1) of a level: outside, a tile's coefficients are zero.
struct alignas(16) Window {
    int y0, y1, x0, x1;
};

// 16 rows x 16 channels of coefficients of one pixel as the left operand of a product, to 16 bits: high + low.
struct Fragment {
    uint4 high, low;
};

__device__ __forceinline__ float low_float(unsigned pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float high_float(unsigned pair) { return __uint_as_float(pair & 0xffff0000u); }

__device__ __forceinline__ void split(float a, float b, unsigned& high, unsigned& low) {
    high = pack_bf16(a, b);
    low = pack_bf16(a - low_float(high), b - high_float(high));
}

// COUNT products at once, d[i] = c[i] + a b[i], each as three of bfloat16; what is dropped, low times low, is 2^-18 of
// it. d[i] may be c[i + 1] or later.
template <int COUNT>
__device__ __forceinline__ void multiply(float (*const (&d)[COUNT])[4], const float (*const (&c)[COUNT])[4],
                                         const Fragment& a, const uint4 (&b)[COUNT]) {
#pragma unroll
    for (int i = 0; i < COUNT; ++i) mma_bf16(*d[i], a.low, b[i].x, b[i].y, *c[i]);
#pragma unroll
    for (int i = 0; i < COUNT; ++i) mma_bf16(*d[i], a.high, b[i].z, b[i].w, *d[i]);
#pragma unroll
    for (int i = 0; i < COUNT; ++i) mma_bf16(*d[i], a.high, b[i].x, b[i].y, *d[i]);
}

// The lane's part of a right operand [16 x 8]: high parts in x, y, low parts in z, w. value(k, n) is an element.
template <class Value>
__device__ __forceinline__ uint4 operand(int lane, Value value) {
    const int k = lane % 4 * 2, n = lane / 4;
    uint4 b;
    split(value(k, n), value(k + 1, n), b.x, b.z);
    split(value(k + 8, n), value(k + 9, n), b.y, b.w);
    return b;
}

// A lane's sums for its two rows.
struct Sums {
    float at[2];
};

// The channel of a group that element e (0..3) of each of the lane's two rows belongs to.
__device__ __forceinline__ int channel_of(int lane, int e) { return e / 2 * 8 + lane % 4 * 2 + e % 2; }

// The biases of the lane's channels of a group.
struct Biases {
    float at[4];

    __device__ __forceinline__ Biases(const Layer& layer, std::int64_t p, int group, int lane) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            const int channel = group * GROUP + channel_of(lane, e);
            at[e] = channel < layer.out_channels ? bias_of<float>(layer, p, channel) : 0.f;
        }
    }
};

// The lane's entries of a table for a pixel's group: slope and intercept of the upper line, of four channels. The lower
// line's slope is 1 where the upper one's is above 1/2, else 0.
struct Entries {
    float4 half[2];

    // from: the lane's first entry.
    __device__ __forceinline__ explicit Entries(const float4* from) { half[0] = from[0], half[1] = from[4]; }
};

// Complete coefficients a [half of the channels][as in the accumulator of a product] of a ReLU's outputs to those of
// its inputs, as an operand; the constants are added to the rows' sums.
__device__ __forceinline__ Fragment through_relu(float (&a)[2][4], const Entries& entries, Sums& sums) {
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
    Fragment result;
    split(a[0][0], a[0][1], result.high.x, result.low.x);
    split(a[0][2], a[0][3], result.high.y, result.low.y);
    split(a[1][0], a[1][1], result.high.z, result.low.z);
    split(a[1][2], a[1][3], result.high.w, result.low.w);
    return result;
}

// What coefficients of pre-activations (a, after through_relu) gain from the biases.
__device__ __forceinline__ void add_biases(const float (&a)[2][4], const Biases& bias, Sums& sums) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
        sums.at[0] += a[e / 2][e % 2] * bias.at[e], sums.at[1] += a[e / 2][2 + e % 2] * bias.at[e];
    }
}

// What a warp works on.
struct Tile {
    std::int64_t p, b;
    const float2* tables;    // of this member and sample
    unsigned char* memory;   // the warp's part of shared memory
    uint4* spill;            // and of global memory
    const int* rows;         // units of the last layer, or rows of C
    int count;               // of them
    int lane;

    // The lane's entries of the nth group of a level's table, pixel by pixel.
    __device__ __forceinline__ const float4* table(const Level& level, int n) const {
        return in_register(reinterpret_cast<const float4*>(tables + level.table) + n * ENTRIES + lane % 4);
    }
    __device__ __forceinline__ Window& window(const Shape& shape, int level) const {
        return reinterpret_cast<Window*>(memory + shape.windows)[level];
    }
    // The row of the pass behind the lane's row r (0: g, 1: g + 8), or -1. With both sides a unit's upper bound, as a
    // lower bound of the negated row, is eight rows after its lower bound.
    __device__ __forceinline__ int row(const Pass& pass, int r) const {
        const int i = lane / 4 + (pass.signs == 2 ? 0 : r * 8);
        return i < count ? rows[i] : -1;
    }
};

}  // namespace glsk::cuda::deep
