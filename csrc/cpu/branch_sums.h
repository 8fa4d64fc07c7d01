// What a unit of a tile of subproblems sums over: lists of the alive units that it is linked to, and the sums.
#pragma once

#include "cpu/branch_layer.h"

namespace glsk {
namespace GLSK_ISA {

// Units accumulated at a time.
constexpr int BRANCH_BLOCK = GLSK_VECTOR_REGISTERS == 32 ? 8 : 4;

// sums [N][V][LANES] = sum over the list's entries of weight[entry + inner[i]] coef[entry].
template <class T, int V, int N>
__attribute__((noinline)) void branch_sums(const AliveList& list, const T* coef, const T* weight, const int* inner_,
                                           T* sums) {
  constexpr int L = LANES<T>, K = N * V < 8 ? 2 : 1;  // few sums are kept in two parts, which need not wait
  int64_t inner[N];
  for (int i = 0; i < N; ++i) inner[i] = inner_[i];
  Vec<T> acc[K][N][V] = {};
  const auto add = [&](int e, Vec<T>(&to)[N][V]) GLSK_LAMBDA_INLINE {
    const T *from = coef + list.coef[e], *w = weight + list.weight[e];
    Vec<T> a[V];
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) a[v] = load<T>(from + v * L);
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i)
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) to[i][v] += w[inner[i]] * a[v];
  };
  int e = 0;
  for (; e + K <= list.count; e += K) {
#pragma GCC unroll 2
    for (int k = 0; k < K; ++k) add(e + k, acc[k]);
  }
  if (K == 2 && e < list.count) add(e, acc[0]);
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i)
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v)
      store<T>(sums + (i * V + v) * L, K == 2 ? acc[0][i][v] + acc[K - 1][i][v] : acc[0][i][v]);
}

template <class T, int V>
GLSK_INLINE void branch_sums(int width, const AliveList& list, const T* coef, const T* weight, const int* inner,
                             T* sums) {
  switch (width) {
    case 1: return branch_sums<T, V, 1>(list, coef, weight, inner, sums);
    case 2: return branch_sums<T, V, 2>(list, coef, weight, inner, sums);
    case 3: return branch_sums<T, V, 3>(list, coef, weight, inner, sums);
    case 4: return branch_sums<T, V, 4>(list, coef, weight, inner, sums);
  }
  if constexpr (BRANCH_BLOCK == 8) switch (width) {
      case 5: return branch_sums<T, V, 5>(list, coef, weight, inner, sums);
      case 6: return branch_sums<T, V, 6>(list, coef, weight, inner, sums);
      case 7: return branch_sums<T, V, 7>(list, coef, weight, inner, sums);
      case 8: return branch_sums<T, V, 8>(list, coef, weight, inner, sums);
    }
}

// The units of one pixel; offsets: of each in the weights.
template <class T, int V>
GLSK_INLINE void enlist(AliveList& list, const BranchLayer<T>& layer, int pixel, int weight0, const int* offsets) {
  typedef int Eight __attribute__((vector_size(32)));
  const int begin = layer.begin[pixel], end = layer.begin[pixel + 1], coef0 = pixel * layer.g.cout * V * LANES<T>;
  for (int i = begin; i < end; i += 8) {  // reads and writes 8, keeps those that are there
    Eight at, offset;
    memcpy(&at, layer.at + i, sizeof at);
    memcpy(&offset, offsets + i, sizeof offset);
    at += coef0;
    offset += weight0;
    memcpy(list.coef + list.count + i - begin, &at, sizeof at);
    memcpy(list.weight + list.count + i - begin, &offset, sizeof offset);
  }
  list.count += end - begin;
}

// The outputs, in the layer's window, that read one pixel of its inputs.
template <class T, int V>
void list_outputs(AliveList& list, const BranchLayer<T>& layer, Reach y, Reach x) {
  const Geometry& g = layer.g;
  const Window& w = layer.window;
  list.count = 0;
  for (int ky = y.k, oy = y.o; ky < g.kh && oy >= w.y0; ky += g.sh, --oy) {
    if (oy >= w.y1) continue;
    for (int kx = x.k, ox = x.o; kx < g.kw && ox >= w.x0; kx += g.sw, --ox) {
      if (ox >= w.x1) continue;
      const int pixel = (oy - w.y0) * w.width() + ox - w.x0;
      enlist<T, V>(list, layer, pixel, (ky * g.kw + kx) * g.cout * g.cin, layer.row);
    }
  }
}

// What one pixel of a layer's outputs reads, in the window of the layer below.
template <class T, int V>
void list_inputs(AliveList& list, const BranchLayer<T>& layer, const BranchLayer<T>& below, int oy, int ox) {
  const Geometry& g = layer.g;
  const Window& w = below.window;
  list.count = 0;
  for (int ky = 0; ky < g.kh; ++ky) {
    const int y = oy * g.sh - g.ph + ky;
    if (y < w.y0 || y >= w.y1) continue;
    for (int kx = 0; kx < g.kw; ++kx) {
      const int x = ox * g.sw - g.pw + kx;
      if (x < w.x0 || x >= w.x1) continue;
      const int pixel = (y - w.y0) * w.width() + x - w.x0;
      enlist<T, V>(list, below, pixel, (ky * g.kw + kx) * g.cout * g.cin, below.channel);
    }
  }
}

template <class T, int V>
void list_corner(AliveList& list, const Geometry& g, int oy, int ox) {
  list.count = 0;
  for (int ky = 0; ky < g.kh; ++ky) {
    const int y = oy * g.sh - g.ph + ky;
    if (y < 0 || y >= g.h) continue;
    for (int kx = 0; kx < g.kw; ++kx) {
      const int x = ox * g.sw - g.pw + kx;
      if (x < 0 || x >= g.w) continue;
      for (int c = 0; c < g.cin; ++c)
        list.add_pixel(((c * g.h + y) * g.w + x) * V * LANES<T>, (ky * g.kw + kx) * g.cout * g.cin + c);
    }
  }
}

}  // namespace GLSK_ISA
}  // namespace glsk
