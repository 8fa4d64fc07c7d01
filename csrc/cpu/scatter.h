// The scattering step, for a first layer with few input channels (images): neighbouring output pixels add their share to
// a row of inputs that stays in registers, and then meets the box.
#pragma once

#include "cpu/backstep.h"

namespace glsk {
namespace GLSK_ISA {

// One row of inputs, all channels, and what adds to it.
template <class T, int V>
struct ScatterRow {
  const Step<T>& s;
  Window out;
  const T* coef;
  AliveList list;
  int taps[16][2], count;  // the output rows oy, and the kernel rows ky, that reach it
  T* at;                   // [cin][span][V][lanes]
  int span;
};

// Of `neighbours` output pixels from ox on, which of their units count.
template <class T, int V>
__attribute__((noinline)) void find_alive(ScatterRow<T, V>& r, int ox, int neighbours) {
  constexpr int L = LANES<T>;
  const Step<T>& s = r.s;
  const Geometry& g = s.g;
  r.list.count = 0;
  for (int t = 0; t < r.count; ++t) {
    const int oy = r.taps[t][0], ky = r.taps[t][1], at = (oy - r.out.y0) * r.out.width() + ox - r.out.x0;
    if (s.dense) {
      r.list.add_pixel(at * g.cout * V * L, ky * g.kw);
      continue;
    }
    const uint64_t* alive = s.alive + (int64_t(oy) * g.ow + ox) * s.words;
    for (int word = 0; word < s.words; ++word) {
      uint64_t bits = 0;
      for (int b = 0; b < neighbours; ++b) bits |= alive[b * s.words + word];
      const int c0 = 64 * word, channels = g.cout - c0 < 64 ? g.cout - c0 : 64, pitch = g.cin * g.kh * g.kw;
      r.list.add(&bits, channels, (at * g.cout + c0) * V * L, V * L, c0 * pitch + ky * g.kw, pitch);
    }
  }
}

// NB neighbouring output pixels add to the row of one input channel, to zeros where `alone`. Weights as PyTorch has them,
// [cout][cin][kh][kw].
template <class T, int V, int KW, int SW, int NB>
__attribute__((noinline)) void add_pixels(const ScatterRow<T, V>& r, bool alone, const T* weight, T* to) {
  constexpr int L = LANES<T>, N = (NB - 1) * SW + KW;
  const Geometry& g = r.s.g;
  const int64_t pixel = int64_t(g.cout) * V * L;
  Vec<T> acc[N][V];
#pragma GCC unroll 32
  for (int i = 0; i < N; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) acc[i][v] = alone ? Vec<T>{} : load<T>(to + (i * V + v) * L);
  const int channels = r.s.dense ? g.cout : 1, pitch = g.cin * g.kh * KW;
  for (int e = 0; e < r.list.count; ++e) {
    const T *from = r.coef + r.list.coef[e], *w = weight + r.list.weight[e];
    for (int c = 0; c < channels; ++c, from += V * L, w += pitch) {
#pragma GCC unroll 8
      for (int b = 0; b < NB; ++b) {
        Vec<T> a[V];
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) a[v] = load<T>(from + b * pixel + v * L);
#pragma GCC unroll 8
        for (int kx = 0; kx < KW; ++kx)
#pragma GCC unroll 4
          for (int v = 0; v < V; ++v) acc[b * SW + kx][v] += w[kx] * a[v];
      }
    }
  }
#pragma GCC unroll 32
  for (int i = 0; i < N; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) store<T>(to + (i * V + v) * L, acc[i][v]);
}

template <class T, int V, int KW, int SW, int NB>
void add_block(ScatterRow<T, V>& r, int ox, bool alone) {
  const Geometry& g = r.s.g;
  find_alive(r, ox, NB);
  for (int64_t ci = 0; ci < g.cin; ++ci)
    add_pixels<T, V, KW, SW, NB>(r, alone, r.s.weight + ci * g.kh * KW,
                                 r.at + (ci * r.span + (ox - r.out.x0) * SW) * V * LANES<T>);
}

// All that reaches the row, which may hold anything before.
template <class T, int V, int KW, int SW>
void add_row(ScatterRow<T, V>& r) {
  // As many neighbours as the registers hold.
  constexpr int NB = GLSK_VECTOR_REGISTERS == 32 ? ((3 * SW + KW) * V <= 26 ? 4 : 2) : (SW + KW) * V <= 12 ? 2 : 1;
  const bool alone = r.out.width() > 0 && r.out.width() <= NB;  // a window in the padding adds nothing
  if (!alone) memset(r.at, 0, sizeof(T) * r.s.g.cin * r.span * V * LANES<T>);
  int ox = r.out.x0;
  for (; ox + NB <= r.out.x1; ox += NB) add_block<T, V, KW, SW, NB>(r, ox, alone);
  switch (r.out.x1 - ox) {
    case 1: return add_block<T, V, KW, SW, 1>(r, ox, alone);
    case 2: return add_block < T, V, KW, SW, NB<2 ? 1 : 2>(r, ox, alone);
    case 3: return add_block < T, V, KW, SW, NB<3 ? 1 : 3>(r, ox, alone);
  }
}

template <class T, int V>
using AddRow = void (*)(ScatterRow<T, V>&);

// From coefficients on the outputs in `out` to the box, row by row of the inputs in `in`. row: room for one.
template <class T, int V, int S>
__attribute__((noinline)) void scatter(AddRow<T, V> add, const Step<T>& s, Window out, const T* coef, Window in, T* row,
                                       AliveList list, Constants<T, V>& constants) {
  constexpr int L = LANES<T>;
  const Geometry& g = s.g;
  const int left = out.x0 * g.sw - g.pw;
  ScatterRow<T, V> r = {s, out, coef, list, {}, 0, row, (out.width() - 1) * g.sw + g.kw};
  Constants<T, V> sums = constants;  // a copy, for the registers
  for (int y = in.y0; y < in.y1; ++y) {
    r.count = 0;
    for (int ky = s.rows[y].k, oy = s.rows[y].o; ky < g.kh && oy >= out.y0; ky += g.sh, --oy) {
      if (oy >= out.y1) continue;
      r.taps[r.count][0] = oy;
      r.taps[r.count++][1] = ky;
    }
    add(r);
    for (int64_t ci = 0; ci < g.cin; ++ci) {
      const auto one = [&](int x, Vec<T>(&sum)[V]) GLSK_LAMBDA_INLINE {
        Vec<T> a[V];
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) a[v] = load<T>(row + ((ci * r.span + x - left) * V + v) * L);
        meet_box<T, V, S>(s, (ci * g.h + y) * g.w + x, a, sum);
      };
      int x = in.x0;
      for (; x + SUMS <= in.x1; x += SUMS) {
#pragma GCC unroll 4
        for (int i = 0; i < SUMS; ++i) one(x + i, sums.sum[i]);
      }
      for (; x < in.x1; ++x) one(x, sums.sum[0]);
    }
  }
  constants = sums;
}

// What adds to a row in a first layer of this shape; null where gathering serves it: in other shapes and, for the sake of
// a short compilation, on processors without AVX2.
template <class T, int V>
AddRow<T, V> scatter_for(const Geometry& g) {
#if GLSK_X86 && !defined(__AVX2__)
  (void)g;
  return nullptr;
#else
  if (g.cin > 4 || g.kh > 16) return nullptr;
  switch (g.kw * 10 + g.sw) {
    case 31: return add_row<T, V, 3, 1>;
    case 32: return add_row<T, V, 3, 2>;
    case 42: return add_row<T, V, 4, 2>;
    case 51: return add_row<T, V, 5, 1>;
    case 52: return add_row<T, V, 5, 2>;
    default: return nullptr;
  }
#endif
}

}  // namespace GLSK_ISA
}  // namespace glsk
