// What the kernels are told about a call. Plain data, passed to a kernel by value; no CUDA header is needed to read it.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define GLSK_ANYWHERE __host__ __device__
#else
#define GLSK_ANYWHERE
#endif

namespace glsk::cuda {

// A float or double tensor [P, B, n] whose last axis is contiguous. Strides are in elements; 0 repeats one slice.
struct View {
    const void* data = nullptr;
    std::int64_t member = 0;
    std::int64_t sample = 0;
};

// How the lines around an activation are made from its bounds (relaxation.cuh).
enum class Rule : int { adaptive, parallel, mask };

// How the deep kernel multiplies float numbers on tensor cores (deep_products.cuh).
enum class Products : int { bf16x3, fp16 };

// What the lines around a layer's activations come from: bounds [P, B, n], or, where upper is null, lines
// [P, B, R, 4, n] in lower: lower slope, lower intercept, upper slope, upper intercept. Strides as of a View.
struct Around {
    const void* lower = nullptr;
    const void* upper = nullptr;
    std::int64_t member = 0, sample = 0;
    std::int64_t row = 0;   // of lines: to the next row of the pass; 0: one for all rows
    std::int64_t line = 0;  // to the next of the 4

    GLSK_ANYWHERE bool are_lines() const { return upper == nullptr; }
};

// A 2-D convolution, or a linear layer written as a 1x1 convolution of a 1x1 image, with all members' weights.
struct Layer {
    int in_channels, in_height, in_width;
    int out_channels, out_height, out_width;
    int kernel_height, kernel_width;
    int stride_height, stride_width;
    int pad_height, pad_width;
    int relu;            // whether an activation follows: LeakyReLU, of slope leak below zero
    const void* weight;  // [P, out_channels, in_channels, kernel_height, kernel_width]
    const void* bias;    // [P, out_channels]; null: no bias
    std::int64_t weight_member, bias_member;
    Around around;  // of no use where no activation follows
    double leak;    // 0 for a plain ReLU

    GLSK_ANYWHERE std::int64_t in_features() const { return std::int64_t(in_channels) * in_height * in_width; }
    GLSK_ANYWHERE std::int64_t out_features() const { return std::int64_t(out_channels) * out_height * out_width; }
    GLSK_ANYWHERE bool is_linear() const {
        return in_height == 1 && in_width == 1 && kernel_height == 1 && kernel_width == 1 && out_height == 1 &&
               out_width == 1 && pad_height == 0 && pad_width == 0;
    }
};

// Kernel parameters are limited to 4 KiB; a deeper chain runs by the reference.
constexpr int MAX_LAYERS = 24;

// One crown_pass: rows of the last layer's outputs (or C times them) back-substituted to the box.
struct Pass {
    std::int64_t members, samples;
    int rows;  // S, or the outputs of the last layer
    int layers;
    int signs;                      // 1: lower bounds only; 2: upper bounds too
    Rule rule;                      // for lines from bounds
    Products products;              // of the deep kernel; others multiply in float
    View x_lower, x_upper;          // the box
    View C;                         // [B, S, n] as (row stride in .member, sample stride); null: identity rows
    View known_lower, known_upper;  // null: no row is pruned
    void* lower;                    // results [P, B, rows], contiguous
    void* upper;                    // null with signs == 1
    void* workspace;
    std::int64_t workspace_per_block;  // in elements
    int chunk, chunks;                 // rows are cut into chunks, one thread block at a time each
    Layer layer[MAX_LAYERS];
};

static_assert(sizeof(Pass) <= 4096, "kernel parameters");

// The gradient of a pass: given those of its bounds, [P, B, rows], contiguous. What is null is not wanted; all but
// parameters is zero beforehand. U: outputs of all layers but the last, in order; D: of every layer its weight, then its
// bias.
struct PassGradient {
    const void* lower;
    const void* upper;  // null: zero
    void* box;          // [P, B, 2, n]
    void* C;            // [P, B, rows, out]
    void* bounds;       // [P, B, 2, U]
    void* lines;        // [P, B, R, 4, U], R = rows where any layer's lines differ by the row, else 1
    void* parameters;   // [P, D]
};

// One ibp_affine: a box through a layer.
struct Interval {
    std::int64_t members, samples;
    int relu;     // whether an activation is applied to both ends of the box first
    double leak;  // its slope below zero
    View lower, upper;
    void* out_lower;  // [P, B, out], contiguous
    void* out_upper;
    Layer layer;
};

// The gradient of an ibp_affine: given those of its bounds, [P, B, out], contiguous. Null: not wanted.
struct IntervalGradient {
    const void* lower;
    const void* upper;
    void* box;         // [P, B, 2, in]
    void* parameters;  // [P, D]: the weight, then the bias
};

}  // namespace glsk::cuda
