// Where rows begin: their first coefficients, on the inputs of their layer or on the outputs of the last one.
#pragma once

#include "cpu/packed.h"
#include "cpu/tile.h"

namespace glsk {
namespace GLSK_ISA {

template <class T>
using Int = decltype(Mask<T>{}[0] + 0);

template <class T>
constexpr int SIGN_BIT = 8 * sizeof(T) - 1;

// Pairs of a row and a sample that are to be bounded, as arrays, so that a block's lanes are loaded.
template <class T>
struct Queue {
  Int<T>*sample, *row, *sign;  // row: a channel of the group, or a row of C; sign: the sign bit, for an upper bound
  int length;

  static int64_t bytes(int64_t pairs) { return 3 * Arena::size<Int<T>>(pairs); }
  Queue() = default;
  Queue(Arena& arena, int64_t pairs)
      : sample(arena.take<Int<T>>(pairs)), row(arena.take<Int<T>>(pairs)), sign(arena.take<Int<T>>(pairs)), length(0) {}

  GLSK_INLINE void put(int s, int r, bool upper, bool really) {
    sample[length] = s;
    row[length] = r;
    sign[length] = Int<T>(upper) << SIGN_BIT<T>;
    length += really;
  }

  // Idle lanes of the last block need a sample and a row, of any pair.
  void overhang(int lanes) {
    for (int i = 0; i < lanes; ++i) sample[length + i] = row[length + i] = sign[length + i] = 0;
  }
};

// The lanes of a block: entries of a queue from one on. In a TILE block only row and sign of a vector's first lane count.
template <class T, int V>
struct Block {
  Mask<T> sample[V], row[V], sign[V];

  Block() = default;
  Block(const Queue<T>& queue, int at) {
    memcpy(sample, queue.sample + at, sizeof sample);
    memcpy(row, queue.row + at, sizeof row);
    memcpy(sign, queue.sign + at, sizeof sign);
  }
};

// A position of a layer's outputs, and a group of channels there.
struct Place {
  int oy, ox, c0;
};

template <class T>
class Rows : public Packed<T> {
 public:
  Rows(const Plan<T>& plan_, Tile<T>& tile_, Arena& arena) : Packed<T>(plan_, arena), tile(tile_) {}

 protected:
  using Packed<T>::bias, Packed<T>::coef, Packed<T>::L, Packed<T>::plan, Packed<T>::weights;
  Tile<T>& tile;

  // The rows' own weights, negated for an upper bound, on the window of inputs; they pass the activation before it.
  // WIDE: a block's channels may be any of the layer's, not only those within a vector of place.c0.
  template <int V, int S, bool WIDE>
  __attribute__((noinline)) void layer_rows(Place place, Window window, const Block<T, V>& block,
                                            Constants<T, V>& constants) {
    const int k = plan.last();
    const Geometry g = plan.g[k];
    const Block<T, V> b = block;  // copies, for the registers
    Step<T> step = tile.met(k, true);
    step.sample = b.sample;
    step.raw = plan.coef_size;
    T* to = coef(k - 1);
    Constants<T, V> sums = constants;
    for (int y = window.y0; y < window.y1; ++y)
      for (int x = window.x0; x < window.x1; ++x) {
        const int ky = y + g.ph - place.oy * g.sh, kx = x + g.pw - place.ox * g.sw;
        const T* from = weights + plan.weights[k] + (int64_t(ky) * g.kw + kx) * g.cin * plan.pitch + place.c0;
        const int64_t pixel = int64_t(y) * g.w + x;
        const auto one = [&](int c, Vec<T>(&sum)[V]) GLSK_LAMBDA_INLINE {
          Vec<T> row[V];
#pragma GCC unroll 2
          for (int v = 0; v < V; ++v) {
            Vec<T> value;
            if constexpr (WIDE)
              for (int i = 0; i < L; ++i) value[i] = from[c * plan.pitch + b.row[v][i]];
            else
              value = __builtin_shuffle(load<T>(from + c * plan.pitch), b.row[v]);
            row[v] = (Vec<T>)((Mask<T>)value ^ b.sign[v]);
          }
          pass_activation<T, V, S>(step, c, g.cin, pixel, row, sum, to + c * V * L);
        };
        int c = 0;
        for (; c + SUMS <= g.cin; c += SUMS) {
#pragma GCC unroll 4
          for (int i = 0; i < SUMS; ++i) one(c + i, sums.sum[i]);
        }
        for (; c < g.cin; ++c) one(c, sums.sum[0]);
        to += int64_t(g.cin) * V * L;
      }
    constants = sums;
  }

  // Rows of the specification C [rows][outputs][lanes], negated for an upper bound, on the last layer's outputs.
  template <int V, int S>
  void specification_rows(const T* C, const Block<T, V>& block, Constants<T, V>& constants) {
    const int k = plan.last();
    const int64_t outputs = plan.g[k].outputs(), pixels = outputs / plan.g[k].cout;
    T* to = coef(k);
    for (int64_t pixel = 0; pixel < pixels; ++pixel)
      for (int c = 0; c < plan.g[k].cout; ++c)
        for (int v = 0; v < V; ++v, to += L) {
          const T* from = C + (c * pixels + pixel) * L;
          Vec<T> value;
          if constexpr (S & MIXED)
            for (int i = 0; i < L; ++i) value[i] = from[block.row[v][i] * outputs * L + block.sample[v][i]];
          else
            value = load<T>(from + block.row[v][0] * outputs * L);
          value = (Vec<T>)((Mask<T>)value ^ block.sign[v]);
          store<T>(to, value);
          constants.sum[0][v] += value * bias(k, c);
        }
  }

  // From coefficients on the outputs of layer j, in the window `out`, to the box. all: every output of layer j may stand
  // in a row.
  template <int V, int S>
  void descend(int j, Window out, Constants<T, V>& constants, const Block<T, V>& block, bool all) {
    this->template substitute<V, S>(j, out, constants, [&](int i) {
      Step<T> step = tile.met(i, all && i == j);
      step.sample = block.sample;
      return step;
    });
  }

  Window whole_output() const { return {0, plan.g[plan.last()].oh, 0, plan.g[plan.last()].ow}; }
};

}  // namespace GLSK_ISA
}  // namespace glsk
