// The way up: a row's own linear network at the corner of the box that the row picks, layer by layer, on the windows that
// the row depends on. It gives what coefficients are multiplied by in the gradient of a bound.
#pragma once

#include "cpu/gather.h"
#include "cpu/outer.h"
#include "cpu/rows.h"

namespace glsk {
namespace GLSK_ISA {

// One layer of it, for any block of rows. Values are times the rows' scale, which is the gradient by their bound.
template <class T>
struct Climb {
  Geometry g;
  const T* weight;  // [kh][kw][cin][pitch]
  int pitch;
  const T* bias;                 // [cout] or null
  const uint64_t* before_alive;  // which inputs are not zero; null: all may not be
  int before_words;
  bool before_dense;
  const T* lines;  // of the outputs, as Step has those of the inputs
  int64_t raw;     // from a coefficient to itself before its activation
  // The lines' gradients, by slope and intercept of the upper line or, if both, of the lower line and the upper one;
  // null: not wanted.
  T* by_unit;   // TILE: [oh * ow][cout][2 or 4][lanes], added to
  T* products;  // MIXED: room for [width][cout][2 or 4][V][lanes]
  bool both;
  T* by_bias;  // [cout][lanes], added to, or null
};

// The output channels taken at a time.
inline int climb_block(const Geometry& g) { return block_of(g.cout); }

inline int climb_pitch(const Geometry& g) {
  const int n = climb_block(g);
  return (g.cout + n - 1) / n * n;
}

// Outputs in `out`: coefficients [pixel][cout][V] in, values after the activation out, in their place. A row of outputs
// is handed to finish(oy) when it is done.
template <class T, int V, int S, int N, class Finish>
__attribute__((noinline)) void climb_n(const Climb<T>& s, Image<T> in, Window out, T* coef, AliveList list,
                                       const Block<T, V>& block_, const Vec<T> (&scale_)[V], const Finish& finish) {
  constexpr int L = LANES<T>;
  const Geometry& g = s.g;
  const Block<T, V> block = block_;
  Vec<T> scale[V];
  for (int v = 0; v < V; ++v) scale[v] = scale_[v];
  for (int oy = out.y0; oy < out.y1; ++oy) {
    T* products = s.products;
    for (int ox = out.x0; ox < out.x1; ++ox) {
      list.count = 0;
      for (int ky = 0; ky < g.kh; ++ky) {
        const int y = oy * g.sh - g.ph + ky;
        if (y < in.window.y0 || y >= in.window.y1) continue;
        for (int kx = 0; kx < g.kw; ++kx) {
          const int x = ox * g.sw - g.pw + kx;
          if (x < in.window.x0 || x >= in.window.x1) continue;
          const int from = int((int64_t(y - in.window.y0) * in.window.width() + x - in.window.x0) * in.pixel) * L;
          const int weight = (ky * g.kw + kx) * g.cin * s.pitch;
          if (!s.before_alive && in.channel == V) {
            list.add_pixel(from, weight);
          } else if (!s.before_alive) {
            for (int c = 0; c < g.cin; ++c) list.add_pixel(from + int(c * in.channel) * L, weight + c * s.pitch);
          } else if (s.before_dense) {
            list.add_pixel(from, weight);
          } else {
            list.add(s.before_alive + (int64_t(y) * g.w + x) * s.before_words, g.cin, from, V * L, weight, s.pitch);
          }
        }
      }
      const bool by_pixel = s.before_alive ? s.before_dense : in.channel == V;
      const int64_t pixel = int64_t(oy) * g.ow + ox;
      for (int o = 0; o < g.cout; o += N) {
        Vec<T> acc[N][V] = {};
        accumulate<T, V, N>(list, by_pixel ? g.cin : 1, in.at, s.weight + o, s.pitch, acc);
        const int width = g.cout - o < N ? g.cout - o : N;
#pragma GCC unroll 8
        for (int i = 0; i < N; ++i) {
          if (i >= width) break;
          const T* lines = s.lines + 4 * L * (pixel * g.cout + o + i);
          const T shift = s.bias ? s.bias[o + i] : T(0);
          T* by_unit = s.by_unit ? s.by_unit + (s.both ? 4 : 2) * L * (pixel * g.cout + o + i) : nullptr;
          Vec<T> by_bias = {};
#pragma GCC unroll 4
          for (int v = 0; v < V; ++v) {
            T* at = coef + (i * V + v) * L;
            const Vec<T> a = load<T>(at + s.raw), zero = {}, y = acc[i][v] + scale[v] * shift;
            by_bias += load<T>(at) * scale[v];
            store<T>(at, pick<T, S>(a, lines, block.sample, v) * acc[i][v] +
                             pick<T, S>(a, lines + 2 * L, block.sample, v) * scale[v]);
            const Vec<T> below = a < 0 ? a : zero, above = a < 0 ? zero : a;
            if constexpr (S & MIXED) {
              if (!s.products) continue;
              T* to = products + v * L;
              if (s.both) {
                store<T>(to, above * y);
                store<T>(to + V * L, above * scale[v]);
                to += 2 * V * L;
              }
              store<T>(to, below * y);
              store<T>(to + V * L, below * scale[v]);
            } else if (by_unit) {
              T* to = by_unit;
              if (s.both) {
                store<T>(to, load<T>(to) + above * y);
                store<T>(to + L, load<T>(to + L) + above * scale[v]);
                to += 2 * L;
              }
              store<T>(to, load<T>(to) + below * y);
              store<T>(to + L, load<T>(to + L) + below * scale[v]);
            }
          }
          if (s.by_bias) store<T>(s.by_bias + (o + i) * L, load<T>(s.by_bias + (o + i) * L) + by_bias);
          if ((S & MIXED) && products) products += (s.both ? 4 : 2) * V * L;
        }
        coef += width * V * L;
      }
    }
    finish(oy);
  }
}

template <class T, int V, int S, class Finish>
void climb(const Climb<T>& s, Image<T> in, Window out, T* coef, AliveList list, const Block<T, V>& block,
           const Vec<T> (&scale)[V], const Finish& finish) {
  switch (climb_block(s.g)) {
    case 1: return climb_n<T, V, S, 1>(s, in, out, coef, list, block, scale, finish);
    case 4: return climb_n<T, V, S, 4>(s, in, out, coef, list, block, scale, finish);
    default: return climb_n<T, V, S, LARGEST_BLOCK>(s, in, out, coef, list, block, scale, finish);
  }
}

}  // namespace GLSK_ISA
}  // namespace glsk
