// What a back-substitution pass settles once for all members and samples.
#pragma once

#include "cpu/gather.h"
#include "cpu/parallel.h"
#include "cpu/scatter.h"
#include "cpu/types.h"

namespace glsk {
namespace GLSK_ISA {

constexpr int MAX_VECTORS = 2;
constexpr int TILE_ROWS = GLSK_VECTOR_REGISTERS == 32 ? 3 : 2;  // of a specification, bounded together over a tile

inline int words_of(int channels) { return (channels + 63) / 64; }

inline int64_t larger(int64_t x, int64_t y) { return x > y ? x : y; }

// One pass: the rows of layer depth - 1, or of a specification of its outputs, and how they are bounded.
template <class T>
struct PassSpec {
  int depth;
  const Layer<T>* layers;  // of the loaded member
  bool specified;          // rows of a C
  int rows;                // of C
  bool biased;             // an HBox pass has no constants
};

// Shapes, and where things stand in a thread's scratch memory.
template <class T>
struct Plan {
  const PassSpec<T> spec;
  bool kept;         // for a gradient: coefficients of every level stay, before and after activations
  Geometry* g;       // [depth]
  int64_t* weights;  // [depth] offset of layer j's packed weights
  int64_t* units;    // [depth] offset of layer j's units, and of its alive words
  int64_t* alive;
  int64_t* reach;  // of the reach of its input rows, then columns
  int64_t* coefs;  // of coefficients on its outputs
  int pitch;       // packed first coefficients of one input unit
  int64_t weights_size, units_size, alive_size, reach_size, coef_size, row_size, list_size;

  int last() const { return spec.depth - 1; }
  bool scattered(int j) const { return j == 0 && scatter_for<T, 1>(g[0]) != nullptr; }

  Plan(const PassSpec<T>& s, Geometry* g_, int64_t* offsets, bool kept_) : spec(s), kept(kept_), g(g_) {
    constexpr int L = LANES<T>;
    weights = offsets;
    units = offsets + s.depth;
    alive = offsets + 2 * s.depth;
    reach = offsets + 3 * s.depth;
    coefs = offsets + 4 * s.depth;
    pitch = 0;
    weights_size = units_size = alive_size = reach_size = coef_size = row_size = list_size = 0;
    for (int j = 0; j < s.depth; ++j) {
      g[j] = s.layers[j].g;
      weights[j] = weights_size;
      units[j] = units_size;
      alive[j] = alive_size;
      reach[j] = reach_size;
      const int64_t pixels = int64_t(g[j].oh) * g[j].ow;
      units_size += pixels * g[j].cout;
      alive_size += pixels * words_of(g[j].cout);
      reach_size += g[j].h + g[j].w;
      const int64_t taps = int64_t(g[j].kh) * g[j].kw;
      list_size = larger(list_size, AliveList::capacity(g[j]));
      if (j == last() && !s.specified) {
        pitch = (g[j].cout + L - 1) / L * L;
        weights_size += taps * g[j].cin * pitch;
      } else if (!scattered(j)) {
        weights_size += taps * g[j].cout * gather_pitch(g[j]);
      }
    }
    // The largest window of coefficients of a level: its rows' own at the last layer, whole images before a C.
    Window w = {0, s.specified ? g[last()].oh : 1, 0, s.specified ? g[last()].ow : 1};
    const int vectors = s.specified && !kept ? TILE_ROWS : MAX_VECTORS;
    int64_t levels = 0;
    for (int j = last(); j >= 0; --j) {
      coefs[j] = levels;
      if (s.specified || j < last()) {
        const int64_t size = int64_t(w.pixels()) * g[j].cout * vectors * L;
        coef_size = larger(coef_size, size);
        levels += size;
      }
      if (j == 0) row_size = (int64_t(w.width() - 1) * g[j].sw + g[j].kw) * g[j].cin * vectors * L;
      const int64_t height = int64_t(w.y1 - 1) * g[j].sh + g[j].kh, width = int64_t(w.x1 - 1) * g[j].sw + g[j].kw;
      w = {0, int(height < g[j].h ? height : g[j].h), 0, int(width < g[j].w ? width : g[j].w)};
    }
    if (kept) {  // one after the other, each twice: before and after its activation
      coef_size = levels;
    } else {  // two take turns
      for (int j = 0; j < s.depth; ++j) coefs[j] = (j & 1) * coef_size;
    }
  }

  static constexpr int OFFSETS = 5;  // a layer
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
