// What a back-substitution pass settles once for all members and samples.
#pragma once

#include "cpu/gather.h"
#include "cpu/parallel.h"
#include "cpu/scatter.h"
#include "cpu/types.h"

namespace glsk {
namespace GLSK_ISA {

constexpr int MAX_VECTORS = 2;
constexpr int SAMPLES = 2;  // that a worker holds at a time
constexpr int TILE_ROWS = GLSK_VECTOR_REGISTERS == 32 ? 3 : 2;  // of a specification, bounded together over a tile

inline int words_of(int channels) { return (channels + 63) / 64; }

// A linear layer that reads an image is the convolution whose kernel is the whole image: then every layer's inputs have
// the pixels and channels of the outputs before it.
inline Geometry as_convolution(Geometry g, const Geometry* before) {
  if (before && g.cin == before->outputs() && g.h * g.w == 1 && before->oh * before->ow > 1)
    return {before->cout, before->oh, before->ow, g.cout, 1, 1, before->oh, before->ow, 1, 1, 0, 0, g.relu};
  return g;
}

// Shapes, and where things stand in a thread's scratch memory.
template <class T>
struct Plan {
  const PassArgs<T>& args;
  Geometry* g;           // [depth], as convolutions
  int64_t* weights;      // [depth] offset of layer j's packed weights
  int64_t* units;        // [depth] offset of layer j's units, and of its alive words
  int64_t* alive;
  int64_t* reach;        // of the reach of its input rows, then columns
  bool paired;           // both sides of all of the last layer's channels fit one vector
  int sides, pitch;      // pitch: packed first coefficients of one input unit
  int64_t weights_size, units_size, alive_size, reach_size, coef_size, row_size, list_size;

  int last() const { return args.depth - 1; }
  bool scattered(int j) const { return j == 0 && scatter_for<T, 1, 1>(g[0]) != nullptr; }

  // tile: for a pass over tiles of samples (tile.h), which packs no row twice.
  Plan(const PassArgs<T>& a, Geometry* g_, int64_t* offsets, bool tile) : args(a), g(g_) {
    constexpr int L = LANES<T>;
    weights = offsets;
    units = offsets + a.depth;
    alive = offsets + 2 * a.depth;
    reach = offsets + 3 * a.depth;
    sides = a.upper ? 2 : 1;
    paired = false;
    pitch = 0;
    weights_size = units_size = alive_size = reach_size = coef_size = row_size = list_size = 0;
    for (int j = 0; j < a.depth; ++j) {
      g[j] = as_convolution(a.layers[j].g, j ? &g[j - 1] : nullptr);
      weights[j] = weights_size;
      units[j] = units_size;
      alive[j] = alive_size;
      reach[j] = reach_size;
      const int64_t pixels = int64_t(g[j].oh) * g[j].ow;
      units_size += pixels * g[j].cout + L;  // the last vector of units may overhang
      alive_size += pixels * words_of(g[j].cout);
      reach_size += g[j].h + g[j].w;
      const int64_t taps = int64_t(g[j].kh) * g[j].kw;
      list_size = larger(list_size, AliveList::capacity(g[j]));
      if (j == a.depth - 1 && !a.C) {
        paired = !tile && sides * g[j].cout <= L;
        pitch = paired ? L : (g[j].cout + L - 1) / L * L;
        weights_size += taps * g[j].cin * pitch;
      } else if (!scattered(j)) {
        weights_size += taps * g[j].cout * gather_pitch(g[j]);
      }
    }
    // The largest window of coefficients of the pass: its rows' own at the last layer, whole images before a C.
    Window w = {0, a.C ? g[last()].oh : 1, 0, a.C ? g[last()].ow : 1};
    const int vectors = tile && a.C ? TILE_ROWS : MAX_VECTORS;
    for (int j = last(); j >= 0; --j) {
      if (a.C || j < last()) coef_size = larger(coef_size, int64_t(w.pixels()) * g[j].cout * vectors * L);
      if (j == 0) row_size = (int64_t(w.width() - 1) * g[j].sw + g[j].kw) * g[j].cin * vectors * L;
      const int64_t height = int64_t(w.y1 - 1) * g[j].sh + g[j].kh, width = int64_t(w.x1 - 1) * g[j].sw + g[j].kw;
      w = {0, int(height < g[j].h ? height : g[j].h), 0, int(width < g[j].w ? width : g[j].w)};
    }
  }

  static constexpr int OFFSETS = 4;  // a layer

  static int64_t larger(int64_t x, int64_t y) { return x > y ? x : y; }
};

// Hands out pieces of one allocation, each on its own cache line.
struct Arena {
  char* at;
  template <class U>
  U* take(int64_t count) {
    U* p = reinterpret_cast<U*>(at);
    at += size<U>(count);
    return p;
  }
  template <class U>
  static int64_t size(int64_t count) {
    return (count * int64_t(sizeof(U)) + GLSK_ALIGN - 1) / GLSK_ALIGN * GLSK_ALIGN;
  }
};

}  // namespace GLSK_ISA
}  // namespace glsk
