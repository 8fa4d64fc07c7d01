// The scattering step, for a first layer with few input channels (images): neighbouring output pixels add their share to
// a row of inputs that stays in registers, and then meets the box.
#pragma once

#include "cpu/backstep.h"

namespace glsk {
namespace GLSK_ISA {

// NB output pixels from ox on add to one row of one input channel; SOLE: they are all there are, so that the row starts
// at zero and ends at the box without being stored. Weights as PyTorch has them, [cout][cin][kh][kw].
template <class T, int V, int S, int KW, int SW, int NB, bool SOLE>
GLSK_INLINE void scatter_block(const Step<T>& s, const AliveList& list, const T* coef, const T* weight, T* row, int left,
                               int64_t input, Constants<T, V>& constants) {
  constexpr int L = LANES<T>, N = (NB - 1) * SW + KW;
  const int64_t pixel = int64_t(s.g.cout) * V * L;
  Vec<T> acc[N][V];
#pragma GCC unroll 32
  for (int i = 0; i < N; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) acc[i][v] = SOLE ? Vec<T>{} : load<T>(row + (i * V + v) * L);
  const int channels = s.dense ? s.g.cout : 1, pitch = s.g.cin * s.g.kh * KW;
  for (int e = 0; e < list.count; ++e) {
    const T *from = coef + list.coef[e], *w = weight + list.weight[e];
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
  for (int i = 0; i < N; ++i) {
    if (!SOLE) {
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) store<T>(row + (i * V + v) * L, acc[i][v]);
    } else if (unsigned(left + i) < unsigned(s.g.w)) {
      meet_box<T, V, S>(s, input + left + i, acc[i], constants.sum[i % SUMS]);
    }
  }
}

// One row of inputs: y, all channels. taps: the output rows oy, and the kernel rows ky, that reach it.
template <class T, int V, int S, int KW, int SW>
struct ScatterRow {
  static constexpr int L = LANES<T>;
  // As many neighbours as the registers hold.
  static constexpr int NB = GLSK_VECTOR_REGISTERS == 32 ? ((3 * SW + KW) * V <= 26 ? 4 : 2) : (SW + KW) * V <= 12 ? 2 : 1;
  const Step<T>& s;
  Window out;
  const T* coef;
  AliveList list;
  int taps[16][2], count;
  T* row;         // [cin][span][V]
  int span;
  int64_t input;  // the row's first, in channel 0
  Constants<T, V> constants;

  GLSK_INLINE void find_alive(int ox, int neighbours) {
    const Geometry& g = s.g;
    list.count = 0;
    for (int t = 0; t < count; ++t) {
      const int oy = taps[t][0], at = (oy - out.y0) * out.width() + ox - out.x0;
      if (s.dense) {
        list.add_pixel(at * g.cout * V * L, taps[t][1] * KW);
        continue;
      }
      const uint64_t* alive = s.alive + (int64_t(oy) * g.ow + ox) * s.words;
      for (int word = 0; word < s.words; ++word) {
        uint64_t bits = 0;
        for (int b = 0; b < neighbours; ++b) bits |= alive[b * s.words + word];
        const int c0 = 64 * word, channels = g.cout - c0 < 64 ? g.cout - c0 : 64, pitch = g.cin * g.kh * KW;
        list.add(&bits, channels, (at * g.cout + c0) * V * L, V * L, c0 * pitch + taps[t][1] * KW, pitch);
      }
    }
  }

  template <int N, bool SOLE>
  GLSK_INLINE void block(int ox) {
    find_alive(ox, N);
    for (int ci = 0; ci < s.g.cin; ++ci)
      scatter_block<T, V, S, KW, SW, N, SOLE>(s, list, coef, s.weight + int64_t(ci) * s.g.kh * KW,
                                           row + (int64_t(ci) * span + (ox - out.x0) * SW) * V * L, ox * SW - s.g.pw,
                                           input + int64_t(ci) * s.g.h * s.g.w, constants);
  }

  void run(int x0, int x1) {
    switch (out.width() <= NB ? out.width() : 0) {
      case 1: return block<1, true>(out.x0);
      case 2: return block<NB < 2 ? 1 : 2, true>(out.x0);
      case 3: return block<NB < 3 ? 1 : 3, true>(out.x0);
      case 4: return block<NB < 4 ? 1 : 4, true>(out.x0);
    }
    memset(row, 0, sizeof(T) * s.g.cin * span * V * L);
    int ox = out.x0;
    for (; ox + NB <= out.x1; ox += NB) block<NB, false>(ox);
    if (NB > 2 && ox + 2 <= out.x1) {
      block<2, false>(ox);
      ox += 2;
    }
    for (; ox < out.x1; ++ox) block<1, false>(ox);
    const int left = out.x0 * SW - s.g.pw;
    for (int ci = 0; ci < s.g.cin; ++ci)
      for (int x = x0; x < x1; ++x) {
        Vec<T> a[V];
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) a[v] = load<T>(row + ((int64_t(ci) * span + x - left) * V + v) * L);
        meet_box<T, V, S>(s, input + int64_t(ci) * s.g.h * s.g.w + x, a, constants.sum[x % SUMS]);
      }
  }
};

template <class T, int V, int S, int KW, int SW>
__attribute__((noinline)) void scatter(const Step<T>& s, Window out, const T* coef, Window in, T* row, AliveList list,
                                       Constants<T, V>& constants) {
  const Geometry& g = s.g;
  ScatterRow<T, V, S, KW, SW> r = {s, out, coef, list, {}, 0, row, (out.width() - 1) * SW + KW, 0, constants};
  for (int y = in.y0; y < in.y1; ++y) {
    r.count = 0;
    for (int ky = s.rows[y].k, oy = s.rows[y].o; ky < g.kh && oy >= out.y0; ky += g.sh, --oy) {
      if (oy >= out.y1) continue;
      r.taps[r.count][0] = oy;
      r.taps[r.count++][1] = ky;
    }
    r.input = int64_t(y) * g.w;
    r.run(in.x0, in.x1);
  }
  constants = r.constants;
}

template <class T, int V>
using Scatter = void (*)(const Step<T>&, Window, const T*, Window, T*, AliveList, Constants<T, V>&);

// The kernel for a first layer of this shape; null where gathering serves it better.
template <class T, int V, int S>
Scatter<T, V> scatter_for(const Geometry& g) {
  if (g.cin > 4 || g.kh > 16) return nullptr;
  switch (g.kw * 10 + g.sw) {
    case 31: return scatter<T, V, S, 3, 1>;
    case 32: return scatter<T, V, S, 3, 2>;
    case 41: return scatter<T, V, S, 4, 1>;
    case 42: return scatter<T, V, S, 4, 2>;
    case 51: return scatter<T, V, S, 5, 1>;
    case 52: return scatter<T, V, S, 5, 2>;
    case 71: return scatter<T, V, S, 7, 1>;
    case 72: return scatter<T, V, S, 7, 2>;
    default: return nullptr;
  }
}

}  // namespace GLSK_ISA
}  // namespace glsk
