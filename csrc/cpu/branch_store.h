// What is kept of a tile's units, to tensors of subproblems.
#pragma once

#include "cpu/branch_tile.h"

namespace glsk {
namespace GLSK_ISA {

// A field of the lanes that `has` gives, and zeros, to [problems][width].
template <class T, int V, class Has>
void store_records(const BranchTile<T, V>& tile, int64_t q0, int count, Field field, T* out, const Has& has) {
  constexpr int L = LANES<T>, VL = V * L;
  const BranchArgs<T>& a = tile.a;
  for (int j = 0; j + 1 < a.depth; ++j) {
    const BranchLayer<T>& layer = tile.layers[j];
    const Span at = tile.span(layer);
    memset(tile.low, 0, sizeof(T) * at.count * VL);
    each_record<T, V>(layer, [&](const T* record, const Roles* roles, int64_t unit) {
      const int64_t slot = at.of(unit);
      for (int v = 0; slot < at.count && v < V; ++v) {
        const Vec<T> value = load<T>(record + (field * V + v) * L), zero = {};
        store<T>(tile.low + (slot * V + v) * L, lanes_of<T>(has(roles[v])) ? value : zero);
      }
    });
    if (!tile.aligned()) {
      tile.each_column(layer, [&](int s, int64_t column, int64_t unit) {
        if (s < count) out[(q0 + s) * a.width + column] = tile.low[unit * VL + s];
      });
      continue;
    }
    T* to = out + q0 * a.width + at.begin;
    for (int v = 0; v * L < count; ++v)
      store_lanes<T>(tile.low + v * L, VL, at.count, count - v * L < L ? count - v * L : L, to + v * L * a.width,
                     a.width);
  }
  for (int s = 0; a.columns && s < count; ++s) {  // columns past the last
    const int64_t* columns = a.columns + tile.image[s] * a.width;
    for (int64_t k = tile.first_column(columns, a.units); k < a.width; ++k) out[(q0 + s) * a.width + k] = 0;
  }
}

}  // namespace GLSK_ISA
}  // namespace glsk
