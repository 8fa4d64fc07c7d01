// A row of a transposed convolution of stride 2 on tensor cores: coefficients of a level to those of the level below.
//
// In padded coordinates, pixel (2 Y + py, 2 X + px) of the level below is read by the four pixels (Y - 1, Y) x
// (X - 1, X) of the level above, with kernel taps 2 + p and p. So two pixels 2 X, 2 X + 1 of one row, sixteen channels
// each, are a product of 16 rows by 32 columns, of depth 4 x channels above. A warp walks along the row of the level
// above, and each pixel it reads finishes one such cell and begins the next.
#pragma once

#include "deep_steps.cuh"

namespace glsk::cuda::deep {

// Two pixels of a cell, [pixel][half of the sixteen channels][accumulator].
struct Cell {
    float at[2][2][4];

    __device__ __forceinline__ Cell() {
#pragma unroll
        for (int i = 0; i < 16; ++i) at[i / 8][i / 4 % 2][i % 4] = 0.f;
    }
};

// The operands of a tap row: [kx], both halves of the channels below.
template <class Product>
struct TapRow {
    typename Product::Pair at[KERNEL];

    __device__ __forceinline__ void load(const uint4* from, int lane) {
#pragma unroll
        for (int i = 0; i < KERNEL; ++i) at[i] = Product::read_pair(from + i * Product::WORDS * LANES + lane);
    }
};

// One pixel above, with one tap row: adds to now, which takes over from sum, and to next, which does from begun.
template <class Product>
__device__ __forceinline__ void add(Cell& now, Cell& next, const Cell& sum, const Cell& begun,
                                    const typename Product::Fragment& a, const TapRow<Product>& taps) {
    float (*const to[8])[4] = {&now.at[0][0],  &now.at[0][1],  &now.at[1][0],  &now.at[1][1],
                               &next.at[0][0], &next.at[0][1], &next.at[1][0], &next.at[1][1]};
    const float (*const from[8])[4] = {&sum.at[0][0],   &sum.at[0][1],   &sum.at[1][0],   &sum.at[1][1],
                                       &begun.at[0][0], &begun.at[0][1], &begun.at[1][0], &begun.at[1][1]};
    const typename Product::Operand b[8] = {taps.at[0].half[0], taps.at[0].half[1], taps.at[1].half[0],
                                            taps.at[1].half[1], taps.at[2].half[0], taps.at[2].half[1],
                                            taps.at[3].half[0], taps.at[3].half[1]};
    multiply<Product>(to, from, a, b);
}

// What the rows above that row y reads are: cell_y - r for r in [first, first + count).
struct Readers {
    int cell_y, phase, first, count;

    __device__ __forceinline__ Readers(const Layer& layer, const Window& above, int y) {
        cell_y = (y + layer.pad_height) / STRIDE, phase = (y + layer.pad_height) % STRIDE;
        const bool there = cell_y >= above.y0 && cell_y < above.y1;
        const bool before = cell_y - 1 >= above.y0 && cell_y - 1 < above.y1;
        first = there ? 0 : 1, count = there + before;
    }
};

// ROWS of the rows above: 2, or 1 where there is only one, or none at all.
template <class Product, bool ONE_GROUP, int ROWS, class Words, class Load, class Emit>
__device__ __forceinline__ void walk_row(const Pass& pass, const Shape& shape, const Tile& tile, const uint4* weights,
                                         int k, const Readers& readers, const Words* ring, Load load, Emit emit) {
    using Fragment = typename Product::Fragment;
    constexpr int FRAGMENT = Product::WORDS * LANES, TAP_ROW = KERNEL * Product::WORDS * LANES;
    const Layer& layer = pass.layer[k];
    const Window above = tile.window(shape, k);
    const int x0 = tile.window(shape, k - 1).x0, x1 = tile.window(shape, k - 1).x1;
    const int groups = ONE_GROUP ? 1 : shape.level[k].groups;
    const int first = ROWS == 1 ? readers.first : 0;  // of the rows cell_y - r
    const int row_words = shape.level[k].width * groups * FRAGMENT;
    const Words* const from = ring + ((readers.cell_y - first) & 1) * row_words + tile.lane;
    const Words* const before = ring + ((readers.cell_y - 1) & 1) * row_words + tile.lane;
    const uint4* const taps_from = weights + (readers.phase + 2 * first) * TAP_ROW;
    TapRow<Product> taps[ONE_GROUP ? ROWS : 1];
    const auto load_taps = [&](TapRow<Product>& to, int row, int group) {
        to.load(taps_from + (group * KERNEL + 2 * row) * TAP_ROW, tile.lane);
    };
    const auto pixel = [&](int q, int row) { return (row == 0 ? from : before) + (q - above.x0) * groups * FRAGMENT; };
    const auto fragment = [&](const Words* at) -> Fragment {
        if (ROWS == 1 && readers.count == 0) return {};
        return Product::read(at);
    };
    if (ONE_GROUP) {
#pragma unroll
        for (int row = 0; row < ROWS; ++row) load_taps(taps[ONE_GROUP ? row : 0], row, 0);
    }
    // What the pixels of cell q need is asked for before the products that hide how late memory answers.
    const auto first_of = [&](int q) { return STRIDE * q - layer.pad_width; };
    const auto load_one = [&](int x) { return load(min(max(x, x0), x1 - 1)); };
    using Entries = decltype(load(0));
    const auto finish = [&](int q, Cell& cell, const Entries(&entries)[2]) {
        __syncwarp();  // of what emit shares, other lanes have read by now what they read two pixels ago
#pragma unroll
        for (int px = 0; px < 2; ++px) {
            const int x = first_of(q) + px;
            if (x >= x0 && x < x1) emit(x, cell.at[px], entries[px]);
        }
    };
    const Cell zero;
    Cell next;
    Fragment upcoming = {};
    if (above.x0 < above.x1) upcoming = fragment(pixel(above.x0, 0));
#pragma unroll 1
    for (int q = above.x0; q < above.x1; ++q) {
        const Entries entries[2] = {load_one(first_of(q)), load_one(first_of(q) + 1)};
        const int later = min(q + 1, above.x1 - 1);
        Cell now;
        if (ONE_GROUP) {
            const Fragment a = upcoming, other = fragment(pixel(q, ROWS - 1));
            upcoming = fragment(pixel(later, 0));
            add(now, next, next, zero, a, taps[0]);
            if (ROWS == 2) add(now, next, now, next, other, taps[ONE_GROUP ? ROWS - 1 : 0]);
        } else {
            const auto after = [&](const Words* at, int row, int group) {
                return group + 1 < groups ? at + FRAGMENT : row + 1 < ROWS ? pixel(q, row + 1) : pixel(later, 0);
            };
            const Words* at = after(pixel(q, 0), 0, 0);
            const Fragment begins = upcoming;  // both cells
            upcoming = fragment(at);
            load_taps(taps[0], 0, 0);
            add(now, next, next, zero, begins, taps[0]);
#pragma unroll
            for (int row = 0; row < ROWS; ++row) {
#pragma unroll 1
                for (int group = row == 0 ? 1 : 0; group < groups; ++group) {
                    const Fragment a = upcoming;
                    at = after(at, row, group);
                    upcoming = fragment(at);
                    load_taps(taps[0], row, group);
                    add(now, next, now, next, a, taps[0]);
                }
            }
        }
        finish(q, now, entries);
    }
    const Entries entries[2] = {load_one(first_of(above.x1)), load_one(first_of(above.x1) + 1)};
    finish(above.x1, next, entries);
}

// Row y of one group of level k - 1, for the pixels x in that level's window, in ascending order: emit(x, values,
// load(x)). ring: of level k. ONE_GROUP: level k has one group; its taps then stay in registers.
template <class Product, bool ONE_GROUP, class Words, class Load, class Emit>
__device__ __forceinline__ void transposed_row(const Pass& pass, const Shape& shape, const Tile& tile,
                                               const unsigned char* memory, int k, int group, int y, const Words* ring,
                                               Load load, Emit emit) {
    const Window below = tile.window(shape, k - 1);
    if (below.x0 == below.x1) return;
    const Readers readers(pass.layer[k], tile.window(shape, k), y);
    const uint4* weights = reinterpret_cast<const uint4*>(memory + shape.level[k].weights) +
                           group * shape.level[k].groups * KERNEL * KERNEL * Product::WORDS * LANES;
    if (readers.count == 2) {
        walk_row<Product, ONE_GROUP, 2>(pass, shape, tile, weights, k, readers, ring, load, emit);
    } else {
        walk_row<Product, ONE_GROUP, 1>(pass, shape, tile, weights, k, readers, ring, load, emit);
    }
}

// Row y of level k - 1, into its ring.
template <class Product, class Words>
__device__ __forceinline__ void middle_row(const Pass& pass, const Shape& shape, const Tile& tile,
                                           const unsigned char* memory, int k, int y, const Words* ring, Sums& sums) {
    constexpr int FRAGMENT = Product::WORDS * LANES;
    const Level& below = shape.level[k - 1];
    const int x0 = tile.window(shape, k - 1).x0;
    uint4* const ring_below = reinterpret_cast<uint4*>(tile.memory + below.ring);
    uint4* const to = ring_below + (y & 1) * below.width * below.groups * FRAGMENT + tile.lane;
    using Steps = StepsOf<Product, true>;
    using Entries = typename Steps::Entries;
    for (int group = 0; group < below.groups; ++group) {
        Steps steps = Steps::begin(pass, tile, k - 1, group);
        const auto* const table = tile.table<Steps>(below, y * below.width * below.groups + group);
        transposed_row<Product, false>(
            pass, shape, tile, memory, k, group, y, ring,
            [&](int x) { return Entries(table + x * below.groups * Steps::ENTRIES); },
            [&](int x, float (&a)[2][4], const Entries& entries) {
                const typename Product::Fragment fragment = steps.through(a, entries, sums);
                Product::write(fragment, to + ((x - x0) * below.groups + group) * FRAGMENT);
            });
        steps.finish(tile, k - 1, sums);
    }
}

}  // namespace glsk::cuda::deep
