// What the files of the deep kernel share: where things lie in memory, and coefficients as operands of tensor cores.
//
// Level k is the output of layer k. A warp carries a tile of 16 one-sided rows (lane / 4 is the row g; g + 8 is the
// other one of the lane) from the top level, which the rows themselves read, to level 0 and the image.
#pragma once

#include "deep_products.cuh"
#include "relaxation.cuh"

namespace glsk::cuda::deep {

constexpr int MAX_LEVELS = 5, MAX_WARPS = 8, MAX_CHUNK = 1024;
constexpr int ROWS = 16;         // one-sided rows of a tile
constexpr int GROUP = 16;        // channels of a fragment
constexpr int KERNEL = 4;        // side of the middle convolutions; smaller ones are filled up with zeros
constexpr int FIRST_KERNEL = 5;  // side of the first one
constexpr int STRIDE = 2;

struct Level {
    int height, width, groups;  // groups: of GROUP channels
    unsigned weights;           // bytes from the start of shared memory: the operands of the product down from here
    unsigned ring;              // bytes from a warp's part: two rows of coefficients
    unsigned table;             // float4s from the start of a block's tables: what a coefficient here goes through
};

// The powers of two that a member's numbers are scaled by where products are of FP16 (deep_scales.cuh).
struct Scales {
    // As exponents: what brings constants of a level to one scale, and the scales of its biases and intercepts.
    int constants[MAX_LEVELS], biases[MAX_LEVELS], intercepts[MAX_LEVELS];
    float weights[MAX_LEVELS], first_biases;
    float box, first_constants;  // what sums over the image meet, and the sums of the first layer's biases
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
    unsigned list, counts, scales, total;
    unsigned box, last;  // float4s from the start of a block's tables: the last: what is known of the last layer
    unsigned table_words, spill_words;  // 16-byte words of global memory: of a block's tables, of a warp's ring
    Level level[MAX_LEVELS];

    // words: of a lane's part of a fragment, 16 bytes each.
    Shape(const Pass& pass, int words, int warp_count, bool spill, int rows_of_a_job) {
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
            at = {layer.out_height, layer.out_width, divide_up(layer.out_channels, GROUP), shared, own_bytes, 0};
            at.table = units * words / 4;  // a unit has 4 bytes in halves, else 8
            units += at.height * at.width * at.groups * GROUP;
            if (k == 0) continue;
            shared += at.groups * level[k - 1].groups * KERNEL * KERNEL * words * LANES * 16;
            const unsigned ring = 2u * at.width * at.groups * words * LANES * 16;
            if (k == top && spill) {
                spill_words = ring / 16;
            } else {
                own_bytes += ring;
            }
        }
        box = units * words / 4;
        last = box + image.in_channels * image_rows * pairs;
        const bool scaled = pass.products == Products::fp16;
        table_words = last + (scaled ? divide_up(pass.layer[pass.layers - 1].out_channels, 4) : 0);
        first = shared;
        own = first + image.in_channels * 6 * LANES * 8 * words;
        windows = own_bytes;
        sums = windows + (top + 1) * 16;
        own_bytes = sums + image.in_channels * 3 * sum_pitch() * 4;
        list = own + warps * own_bytes;
        counts = list + chunk * 4;
        scales = counts + (warps * LANES + 1) * 4;
        total = scales + (scaled ? sizeof(Scales) : 0);
    }

    // Floats of one image row of one tile that is not complete yet: [pair][row of the tile][column of the pair], and
    // some, so that the four image rows that a warp's lanes are at begin in different banks.
    __host__ __device__ int sum_pitch() const { return pairs * ROWS * 2 + 8; }
};

// Units [y0, y1) x [x0, x1) of a level: outside, a tile's coefficients are zero.
struct alignas(16) Window {
    int y0, y1, x0, x1;
};

// A lane's sums for its two rows.
struct Sums {
    float at[2];
};

// What a warp works on.
struct Tile {
    std::int64_t p, b;
    const float4* tables;   // of this member and sample
    unsigned char* memory;  // the warp's part of shared memory
    uint4* spill;           // and of global memory
    const int* rows;        // units of the last layer, or rows of C
    int count;              // of them
    int lane;
    const Scales* scales;       // where products are scaled
    const float* most_of_last;  // and of each output of the last layer the largest weight

    // The lane's entries of the nth group of a level's table, pixel by pixel.
    template <class Steps>
    __device__ __forceinline__ const typename Steps::Entry* table(const Level& level, int n) const {
        using Entry = typename Steps::Entry;
        return in_register(reinterpret_cast<const Entry*>(tables + level.table) + n * Steps::ENTRIES + lane % 4);
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
