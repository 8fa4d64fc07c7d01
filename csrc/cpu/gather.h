// The gathering step: every input pixel sums over the output pixels that read it, N input channels at a time.
#pragma once

#include "cpu/backstep.h"

namespace glsk {
namespace GLSK_ISA {

// Of n channels, how many are taken at a time: few sizes, since every kernel is compiled for each.
constexpr int LARGEST_BLOCK = GLSK_VECTOR_REGISTERS == 32 ? 8 : 4;
inline int block_of(int n) { return n == 1 ? 1 : n <= 4 ? 4 : LARGEST_BLOCK; }

// Input channels taken at a time for a layer of this shape.
inline int gather_block(const Geometry& g) { return block_of(g.cin); }

// Weights are packed [kh][kw][cout][cin rounded up to a multiple of N].
inline int gather_pitch(const Geometry& g) {
  const int n = gather_block(g);
  return (g.cin + n - 1) / n * n;
}

// channels: that each entry of the list stands for.
template <class T, int V, int N>
GLSK_INLINE void accumulate(const AliveList& list, int channels, const T* coef, const T* weight, int pitch,
                            Vec<T> (&acc)[N][V]) {
  for (int e = 0; e < list.count; ++e) {
    const T *from = coef + list.coef[e], *w = weight + list.weight[e];
    for (int c = 0; c < channels; ++c, from += V * LANES<T>, w += pitch) {
      Vec<T> a[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) a[v] = load<T>(from + v * LANES<T>);
#pragma GCC unroll 16
      for (int i = 0; i < N; ++i)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) acc[i][v] += w[i] * a[v];
    }
  }
}

// coef: on the outputs in `out`; next: on the inputs in `in`, after their activation. FIRST: the inputs meet the box.
template <class T, int V, int S, int N, bool FIRST>
__attribute__((noinline)) void gather_n(const Step<T>& s, Window out, const T* coef, Window in, T* next, AliveList list,
                                        Constants<T, V>& constants) {
  constexpr int L = LANES<T>;
  const Geometry& g = s.g;
  const int pitch = gather_pitch(g);
  const int64_t pixels = int64_t(g.h) * g.w;
  Constants<T, V> sums = constants;  // a copy, for the registers
  for (int y = in.y0; y < in.y1; ++y) {
    for (int x = in.x0; x < in.x1; ++x) {
      list.count = 0;
      for (int ky = s.rows[y].k, oy = s.rows[y].o; ky < g.kh && oy >= out.y0; ky += g.sh, --oy) {
        if (oy >= out.y1) continue;
        for (int kx = s.cols[x].k, ox = s.cols[x].o; kx < g.kw && ox >= out.x0; kx += g.sw, --ox) {
          if (ox >= out.x1) continue;
          const int at = (oy - out.y0) * out.width() + ox - out.x0;
          const int coef0 = at * g.cout * V * L, weight0 = (ky * g.kw + kx) * g.cout * pitch;
          if (s.dense)
            list.add_pixel(coef0, weight0);
          else
            list.add(s.alive + (int64_t(oy) * g.ow + ox) * s.words, g.cout, coef0, V * L, weight0, pitch);
        }
      }
      const int64_t pixel = int64_t(y) * g.w + x;
      for (int c0 = 0; c0 < g.cin; c0 += N) {
        const int width = g.cin - c0 < N ? g.cin - c0 : N;
        T* to = FIRST ? nullptr : next;
        if (!FIRST) next += int64_t(width) * V * L;
        if (!FIRST && !(s.before_alive[pixel * s.before_words + c0 / 64] >> (c0 % 64) & ((uint64_t(1) << N) - 1))) {
          memset(to, 0, sizeof(T) * width * V * L);  // no row can depend on these units
          if constexpr (S & KEPT) memset(to + s.raw, 0, sizeof(T) * width * V * L);
          continue;
        }
        Vec<T> acc[N][V] = {};
        accumulate<T, V, N>(list, s.dense ? g.cout : 1, coef, s.weight + c0, pitch, acc);
#pragma GCC unroll 16
        for (int i = 0; i < N; ++i) {
          if (i < width) {
            if (FIRST)
              meet_box<T, V, S>(s, (c0 + i) * pixels + pixel, acc[i], sums.sum[i % SUMS]);
            else
              pass_activation<T, V, S>(s, c0 + i, g.cin, pixel, acc[i], sums.sum[i % SUMS], to + int64_t(i) * V * L);
          }
        }
      }
    }
  }
  constants = sums;
}

template <class T, int V, int S, bool FIRST>
void gather(const Step<T>& s, Window out, const T* coef, Window in, T* next, AliveList list,
            Constants<T, V>& constants) {
  switch (gather_block(s.g)) {
    case 1: return gather_n<T, V, S, 1, FIRST>(s, out, coef, in, next, list, constants);
    case 4: return gather_n<T, V, S, 4, FIRST>(s, out, coef, in, next, list, constants);
    default: return gather_n<T, V, S, LARGEST_BLOCK, FIRST>(s, out, coef, in, next, list, constants);
  }
}

}  // namespace GLSK_ISA
}  // namespace glsk
