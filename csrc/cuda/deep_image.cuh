// The last product, the transposed first convolution (5 x 5, stride 2, few image channels), and the box.
//
// In padded coordinates pixel (y, x) of level 0 reaches image rows 2 y + ky and columns 2 x + kx. Columns are taken in
// pairs: kx = 0, 1 is pair x, kx = 2, 3 pair x + 1, kx = 4 pair x + 2. A product's eight columns are the lanes' turns
// t = 0..3, two columns each:
//   three operands, one a pair ("slot"): turn t is image row ky = t;
//   one for ky = 4, "late": turn t < 3 is the pair that is t modulo 3, so this operand has three versions; turn 3
//   collects what the biases of layer 0 add to the rows' constants.
// Going along the row of level 0, an accumulator's slot becomes the one before it, so that sums over kx never leave
// registers. Sums over ky meet in shared memory, where three image rows of the tile wait to be complete: those of the
// even rows 2 y and 2 y + 2 in places 0 and 1, alternating, and the odd one in place 2.
#pragma once

#include "deep_steps.cuh"

namespace glsk::cuda::deep {

// CHANNELS: image channels that there is room for.
template <int CHANNELS, class Product>
struct Image {
    using Operand = typename Product::Operand;
    using Steps = StepsOf<Product, false>;
    static constexpr int RESIDENT = CHANNELS == 1 ? 3 : 0;  // operands that stay in registers

    const Pass& pass;
    const Shape& shape;
    const Tile& tile;
    const Operand* weights;
    Sums& total;
    Operand taps[3];
    float slot[CHANNELS][3][4], late[CHANNELS][4];
    int turn;  // x modulo 3
    Steps steps;
    const typename Steps::Entry* table;  // of this row of level 0
    float2 *own, *late_own;              // where the lane's sums of this row, over ky = t and over ky = 4, wait
    const float4* box;                   // row 2 y + t of the image; with t >= 2, whose rows are not complete, zeros

    __device__ __forceinline__ Image(const Pass& pass_, const Shape& shape_, const Tile& tile_,
                                     const unsigned char* memory, Sums& total_)
        : pass(pass_),
          shape(shape_),
          tile(tile_),
          weights(reinterpret_cast<const Operand*>(memory + shape_.first) + tile_.lane),
          total(total_),
          steps(Steps::begin(pass_, tile_, 0, 0)) {
#pragma unroll
        for (int s = 0; s < RESIDENT; ++s) taps[s] = weights[s * LANES];
    }

    __device__ __forceinline__ int channels() const { return CHANNELS == 1 ? 1 : pass.layer[0].in_channels; }
    __device__ __forceinline__ int turn_of_lane() const { return tile.lane % 4; }

    // Where a sum waits: that of pair i and the lane's two rows is at [i * ROWS] and [i * ROWS + 8].
    __device__ __forceinline__ float2* waiting(int place) const {
        float* const sums = reinterpret_cast<float*>(tile.memory + shape.sums);
        return reinterpret_cast<float2*>(sums + place * shape.sum_pitch()) + tile.lane / 4;
    }
    __device__ __forceinline__ int next_channel() const { return 3 * shape.sum_pitch() / 2; }  // in float2s
    __device__ __forceinline__ const float4* image_row(int row) const {
        return tile.tables + shape.box + row * shape.pairs;
    }

    // Before the first row of level 0.
    __device__ __forceinline__ void clear(const Window& window) const {
        for (int pair = window.x0 + turn_of_lane(); pair < window.x1 + 2; pair += 4) {
            for (int i = 0; i < 3 * channels(); ++i) {
                float2* const sum = waiting(i) + pair * ROWS;
                sum[0] = sum[8] = float2{0.f, 0.f};
            }
        }
        __syncwarp();
    }

    // What earlier rows of level 0 have brought to the lane's image row, 2 y + t; to 2 y + 3 nothing.
    __device__ __forceinline__ void begin_pair(int channel, int pair, float (&to)[4]) const {
        float2 first = {0.f, 0.f}, second = {0.f, 0.f};
        if (turn_of_lane() < 3) {
            const float2* const from = own + channel * next_channel() + pair * ROWS;
            first = from[0], second = from[8];
        }
        to[0] = first.x, to[1] = first.y, to[2] = second.x, to[3] = second.y;
    }

    // Complete coefficients of the pair's two columns, of one row of the tile, meet the box.
    __device__ __forceinline__ void meet(const float4& at, float left, float right, float& sum) const {
        sum += left * (left < 0.f ? at.y : at.x), sum += right * (right < 0.f ? at.w : at.z);
    }

    // The pair, whose sums are the given ones, gets nothing more from this row of level 0.
    __device__ __forceinline__ void finish_pair(int channel, int pair, int pair_turn, const float (&sum)[4]) {
        const int t = turn_of_lane(), at = channel * next_channel() + pair * ROWS;
        const float4 meets = box[channel * shape.image_rows * shape.pairs + pair];
        meet(meets, sum[0], sum[1], total.at[0]);
        meet(meets, sum[2], sum[3], total.at[1]);
        if (t >= 2) own[at] = {sum[0], sum[1]}, own[at + 8] = {sum[2], sum[3]};
        float (&later)[4] = late[CHANNELS == 1 ? 0 : channel];
        if (t == pair_turn) late_own[at] = {later[0], later[1]}, late_own[at + 8] = {later[2], later[3]};
#pragma unroll
        for (int i = 0; i < 4; ++i) later[i] = t == pair_turn ? 0.f : later[i];
    }

    __device__ __forceinline__ void begin_row(int y, int x) {
        const int t = turn_of_lane();
        turn = x % 3;
        table = tile.table<Steps>(shape.level[0], y * shape.level[0].width);
        own = waiting(t % 2 == 1 ? 2 : (y + t / 2) & 1), late_own = waiting(y & 1);
        box = in_register(image_row(t < 2 ? STRIDE * y + t : shape.image_rows - 1));
#pragma unroll
        for (int c = 0; c < CHANNELS; ++c) {
            if (c >= channels()) break;
            begin_pair(c, x, slot[c][1]), begin_pair(c, x + 1, slot[c][2]);
#pragma unroll
            for (int i = 0; i < 4; ++i) late[c][i] = 0.f;
        }
    }

    __device__ __forceinline__ typename Steps::Entries load(int x) const {
        return typename Steps::Entries(table + x * Steps::ENTRIES);
    }

    // Pixel x of level 0, complete but for its ReLU.
    __device__ __forceinline__ void pixel(int x, float (&a)[2][4], const typename Steps::Entries& entries) {
        const typename Product::Fragment fragment = steps.through(a, entries, total);
#pragma unroll
        for (int c = 0; c < CHANNELS; ++c) {
            if (c >= channels()) break;
            float begun[4];
            begin_pair(c, x + 2, begun);
            const Operand* const from = weights + c * 6 * LANES;
            const Operand b[4] = {RESIDENT ? taps[0] : from[0], RESIDENT ? taps[1] : from[LANES],
                                  RESIDENT ? taps[2] : from[2 * LANES], from[(3 + turn) * LANES]};
            float (*const to[4])[4] = {&slot[c][0], &slot[c][1], &slot[c][2], &late[c]};
            const float (*const sums[4])[4] = {&slot[c][1], &slot[c][2], &begun, &late[c]};
            multiply<Product>(to, sums, fragment, b);
            finish_pair(c, x, turn, slot[c][0]);
        }
        turn = turn == 2 ? 0 : turn + 1;
    }

    // After the row's last pixel, x1 - 1.
    __device__ __forceinline__ void end_row(int x1) {
        __syncwarp();  // as in walk_row: the row may have had no pixel
#pragma unroll
        for (int c = 0; c < CHANNELS; ++c) {
            if (c >= channels()) break;
            finish_pair(c, x1, turn, slot[c][1]);
            finish_pair(c, x1 + 1, turn == 2 ? 0 : turn + 1, slot[c][2]);
        }
        const float scale = Product::SCALED ? tile.scales->first_constants : 1.f;
        if (turn_of_lane() == 3) total.at[0] += late[0][0] * scale, total.at[1] += late[0][2] * scale;
        __syncwarp();  // the next row's sums are read by other lanes than have written them
    }

    // After the last row of level 0: the image rows 2 y1, 2 y1 + 1 and 2 y1 + 2 are complete now.
    __device__ __forceinline__ void end(const Window& window) const {
        steps.finish(tile, 0, total);
        const int t = turn_of_lane();
        if (t == 3) return;
        for (int c = 0; c < channels(); ++c) {
            const float2* const from = waiting(3 * c + (t == 1 ? 2 : (window.y1 + t / 2) & 1));
            const float4* const row = image_row(c * shape.image_rows + STRIDE * window.y1 + t);
            for (int pair = window.x0; pair < window.x1 + 2; ++pair) {
                const float2 first = from[pair * ROWS], second = from[pair * ROWS + 8];
                meet(row[pair], first.x, first.y, total.at[0]);
                meet(row[pair], second.x, second.y, total.at[1]);
            }
        }
    }
};

}  // namespace glsk::cuda::deep
