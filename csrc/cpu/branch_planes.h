// Planes above the units of layer 0: affine upper bounds of activations in what the units read (glsk/ops/branch_pass.py).
#pragma once

#include "cpu/branch_tile.h"

namespace glsk {
namespace GLSK_ISA {

template <int V>
bool some_above(const Roles* roles) {
  uint32_t some = 0;
  for (int v = 0; v < V; ++v) some |= roles[v].above;
  return some;
}

// body(tap, input) of what a pixel of layer 0 reads.
template <class Body>
GLSK_INLINE void each_tap(const Geometry& g, int oy, int ox, const Body& body) {
  for (int c = 0; c < g.cin; ++c)
    for (int ky = 0; ky < g.kh; ++ky) {
      const int y = oy * g.sh - g.ph + ky;
      if (y < 0 || y >= g.h) continue;
      const int64_t taps = (int64_t(c) * g.kh + ky) * g.kw, row = (int64_t(c) * g.h + y) * g.w;
      for (int kx = 0; kx < g.kw; ++kx) {
        const int x = ox * g.sw - g.pw + kx;
        if (x >= 0 && x < g.w) body(taps + kx, row + x);
      }
    }
}

// Those of a tile's image, in shares of 1 - dual.
template <class T, int V>
class GivenPlanes {
 public:
  static constexpr bool ALONE = false;
  static constexpr int L = LANES<T>, VL = V * L;

  explicit GivenPlanes(BranchTile<T, V>& tile_) : tile(tile_) {}

  bool any() const { return tile.a.planes; }

  // The value of a unit's at the corner.
  const T* at(int64_t unit, const T*, T, const T*, const Roles*, const Mask<T> (&)[V]) {
    const Geometry& g = tile.layers[0].g;
    const T* plane = tile.plane_of(g, unit);
    Vec<T> sum[V];
    for (int v = 0; v < V; ++v) sum[v] = broadcast<T>(plane[g.taps()]);
    each_tap(g, int(unit / g.ow % g.oh), int(unit % g.ow), [&](int64_t tap, int64_t input) GLSK_LAMBDA_INLINE {
      for (int v = 0; v < V; ++v) sum[v] += plane[tap] * load<T>(tile.corner + (input * V + v) * L);
    });
    for (int v = 0; v < V; ++v) store<T>(value + v * L, sum[v]);
    return value;
  }

  // Their part of the rows, beside what goes through the units.
  void spread(Vec<T> (&sum)[V]) {
    const BranchLayer<T>& layer = tile.layers[0];
    const Geometry& g = layer.g;
    memset(tile.beside, 0, sizeof(T) * g.inputs() * VL);
    each_record<T, V>(layer, [&](const T* record, const Roles* roles, int64_t unit) {
      if (!some_above<V>(roles)) return;
      Vec<T> part[V];
      Mask<T> some = {};
      for (int v = 0; v < V; ++v) {
        const Vec<T> a = load<T>(record + (COEFFICIENT * V + v) * L), q = load<T>(record + (DUAL * V + v) * L);
        const Mask<T> has = lanes_of<T>(roles[v].above) & ~(Mask<T>)(a >= 0);
        part[v] = has ? a * (1 - q) : Vec<T>{};
        some |= has;
      }
      if (!GLSK_ISA::any<T>(some)) return;
      const T* plane = tile.plane_of(g, unit);
      for (int v = 0; v < V; ++v) sum[v] += part[v] * plane[g.taps()];
      each_tap(g, int(unit / g.ow % g.oh), int(unit % g.ow), [&](int64_t tap, int64_t input) GLSK_LAMBDA_INLINE {
        T* to = tile.beside + input * VL;
        for (int v = 0; v < V; ++v) store<T>(to + v * L, load<T>(to + v * L) + plane[tap] * part[v]);
      });
    });
  }

 private:
  BranchTile<T, V>& tile;
  T value[VL];
};

}  // namespace GLSK_ISA
}  // namespace glsk
