// The hidden units of a tile of subproblems, compacted: only units that some lane needs cost anything.
#pragma once

#include "cpu/branch_lanes.h"

namespace glsk {
namespace GLSK_ISA {

// Of a unit that has a dual in some lane: bit s of each says what the unit is in lane s. Neither: it is stable there.
struct Roles {
  uint32_t free, active, inactive;  // unstable; split
  uint32_t above;                   // free, and there is a plane above the unit
};

// What is kept of such a unit, [V][LANES] each: its coefficient before the activation, its dual, the upper line, Adam's
// moments, and the dual of the best iterate.
enum Field { COEFFICIENT, DUAL, SLOPE, INTERCEPT, MEAN, SQUARE, BEST, FIELDS };

enum Kind : uint8_t { DEAD, PLAIN, DUALS };  // zero in every lane; the identity; anything else

// One layer. Pixels are those of its window, in order; units are those of a pixel that are alive, the plain ones (the
// identity in every lane) first.
template <class T>
struct BranchLayer {
  Geometry g;
  bool last;
  T rest;         // 1 - leak
  T* weight;      // [kh * kw][cout][cin]
  const T* bias;  // null: zeros
  Window window;
  int *begin, *plain;       // [pixels + 1] a pixel's first unit; [pixels] how many of them are plain
  int *channel, *at, *row;  // [units]: their channel, and where it stands among coefficients and weights of outputs
  T* coef;                  // [pixels][cout][V][LANES]; zeros where no unit is alive
  T* record;                // [units with duals][FIELDS][V][LANES]
  Roles* roles;             // [units with duals][V]
  int64_t first;            // in packed units
  Kind* kinds;              // [outputs], those of which the lists are
  bool known;               // the lists are of the whole layer, and of `kinds`
};

// The lists of a layer, by the kind of each unit of its window; made(unit, coefficient) of each that is alive.
template <class T, int V, class Made>
void fill_layer(BranchLayer<T>& layer, const Made& made) {
  constexpr int VL = V * LANES<T>;
  const Geometry& g = layer.g;
  const Window& w = layer.window;
  const Kind* kinds = layer.kinds;
  memset(layer.coef, 0, sizeof(T) * w.pixels() * g.cout * VL);
  int units = 0, pixel = 0;
  for (int y = w.y0; y < w.y1; ++y)
    for (int x = w.x0; x < w.x1; ++x, ++pixel) {
      layer.begin[pixel] = units;
      for (int wanted = PLAIN; wanted <= DUALS; ++wanted) {
        for (int c = 0; c < g.cout; ++c) {
          const int64_t unit = (int64_t(c) * g.oh + y) * g.ow + x;
          if (kinds[unit] != wanted) continue;
          layer.channel[units] = c;
          layer.at[units] = c * VL;
          layer.row[units++] = c * g.cin;
          made(unit, layer.coef + (int64_t(pixel) * g.cout + c) * VL);
        }
        if (wanted == PLAIN) layer.plain[pixel] = units - layer.begin[pixel];
      }
    }
  layer.begin[pixel] = units;
}

// body(record, roles, unit) of each unit that has duals.
template <class T, int V, class Body>
void each_record(const BranchLayer<T>& layer, const Body& body) {
  const Geometry& g = layer.g;
  const Window& w = layer.window;
  T* record = layer.record;
  Roles* roles = layer.roles;
  for (int pixel = 0; pixel < w.pixels(); ++pixel) {
    const int64_t place = int64_t(w.y0 + pixel / w.width()) * g.ow + w.x0 + pixel % w.width();
    for (int k = layer.begin[pixel] + layer.plain[pixel]; k < layer.begin[pixel + 1];
         ++k, record += FIELDS * V * LANES<T>, roles += V)
      body(record, roles, layer.channel[k] * int64_t(g.oh) * g.ow + place);
  }
}

// What a unit without splits is where its bounds are the same in every lane.
template <class T>
GLSK_INLINE Kind kind_of(T low, T up, bool leaky) {
  const T half = up * T(0.5) - low * T(0.5), most = T(__builtin_inf());
  const bool good = (half < most) & (half > -most);
  const bool some = leaky | (low >= 0) | (up > 0) | !good;
  return good & (low >= 0) ? PLAIN : some ? DUALS : DEAD;
}

// What a unit is, from its bounds [V][LANES] and its splits.
template <class T, int V>
Kind kind_of(const T* low, const T* up, const Roles* splits, bool leaky) {
  constexpr int L = LANES<T>;
  Mask<T> some = {}, other = {};
  uint32_t split = 0;
  for (int v = 0; v < V; ++v) {
    const Vec<T> l = load<T>(low + v * L), u = load<T>(up + v * L);
    const Mask<T> good = finite_width<T>(l, u), active = l >= 0;
    some |= active | (u > 0) | ~good;
    other |= ~(active & good);
    split |= splits[v].active | splits[v].inactive;
  }
  if (split) return DUALS;
  if (!any<T>(other)) return PLAIN;
  return leaky || any<T>(some) ? DUALS : DEAD;
}

// Who has a dual, its first value (CROWN's, unless `start` [V][LANES] is given), and the lines. Bounds, `pitch` apart.
template <class T, int V>
GLSK_INLINE void make_record(const T* low, const T* up, int pitch, const Roles* splits, const T* start, T leak,
                             bool plane, T* record, Roles* roles) {
  constexpr int L = LANES<T>, VL = V * L;
  const Vec<T> zero = {}, one = broadcast<T>(1), least = broadcast<T>(leak);
  Lines<T> lines;
  for (int v = 0; v < V; ++v) {
    const Vec<T> l = load<T>(low + v * pitch), u = load<T>(up + v * pitch);
    Roles role = splits[v];
    const Mask<T> active = lanes_of<T>(role.active), inactive = lanes_of<T>(role.inactive), split = active | inactive;
    const Mask<T> unstable = (l < 0) & (u > 0) & ~split, good = finite_width<T>(l, u);
    role.free = bits_of<T>(unstable);
    role.above = plane ? role.free : 0;
    if (!v || pitch) lines = relax<T>(l, u, leak, ADAPTIVE);  // NaN where bounds are not finite
    Vec<T> slope = (active & good) ? one : lines.slope_neg;
    slope = (inactive & good) ? least : slope;
    Vec<T> q = u > -l ? one : zero;
    if (start)
      q = load<T>(start + v * L);
    else
      q = split ? zero : q;
    q = q < 0 ? zero : q;
    q = (unstable & (q > 1)) ? one : q;
    q = (unstable | split) ? q : zero;
    T* to = record + v * L;
    store<T>(to + DUAL * VL, q);
    store<T>(to + SLOPE * VL, slope);
    store<T>(to + INTERCEPT * VL, (split & good) ? zero : lines.const_neg);
    store<T>(to + MEAN * VL, zero);
    store<T>(to + SQUARE * VL, zero);
    store<T>(to + BEST * VL, q);
    roles[v] = role;
  }
}

// The bits of one lane, from its splits.
template <int V>
inline void mark_splits(const int8_t* split, int64_t length, uint32_t bit, Roles* to) {
  for (int64_t i = 0; i < length; i += 8) {
    uint64_t some = 0;
    memcpy(&some, split + i, length - i < 8 ? length - i : 8);
    if (!some) continue;
    for (int64_t k = i; k < i + 8 && k < length; ++k) {
      if (split[k] > 0) to[k * V].active |= bit;
      if (split[k] < 0) to[k * V].inactive |= bit;
    }
  }
}

}  // namespace GLSK_ISA
}  // namespace glsk
