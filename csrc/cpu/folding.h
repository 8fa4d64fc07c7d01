// What a tile adds up by lane (specifications) and by sample (rows of a layer), brought together: a vector a unit.
#pragma once

#include "cpu/lines.h"
#include "cpu/sums.h"

namespace glsk {
namespace GLSK_ISA {

// Vector i of `pitch`: by_lane [pitch][lanes] and by_sample [lanes][pitch].
template <class T>
GLSK_INLINE Vec<T> folded(const T* by_lane, const T* by_sample, int64_t pitch, int64_t i) {
  Vec<T> sum = load<T>(by_lane + i * LANES<T>);
  for (int s = 0; s < LANES<T>; ++s) sum[s] += by_sample[s * pitch + i];
  return sum;
}

// each(at, by) for every unit of a layer: its first lane in arrays [units][lanes], and its sums by slope and intercept of
// the lower line (zeros where only the upper one's are summed) and of the upper one.
template <class T, class Each>
GLSK_INLINE void fold_lines(const Geometry& g, const LayerSums<T>& sums, const Each& each) {
  const int64_t pixels = int64_t(g.oh) * g.ow, q = sums.quantities(), pitch = g.outputs() * q;
  for (int64_t pixel = 0; pixel < pixels; ++pixel)
    for (int c = 0; c < g.cout; ++c) {
      Vec<T> by[4] = {};
      for (int i = 0; i < q; ++i)
        by[4 - q + i] = folded<T>(sums.by_unit, sums.by_sample, pitch, (pixel * g.cout + c) * q + i);
      each((c * pixels + pixel) * LANES<T>, by);
    }
}

// The same by the bounds that the lines are made from, [units][lanes] each: each(at, by_lower, by_upper).
template <class T, class Each>
GLSK_INLINE void fold_bounds(const Layer<T>& layer, const LayerSums<T>& sums, Rule rule, const T* lower, const T* upper,
                             const Each& each) {
  fold_lines<T>(layer.g, sums, [&](int64_t at, const Vec<T>(&by)[4]) GLSK_LAMBDA_INLINE {
    Vec<T> by_l, by_u;
    relax_gradient<T>(load<T>(lower + at), load<T>(upper + at), layer.leak, rule, by[0], by[2], by[3], by_l, by_u);
    each(at, by_l, by_u);
  });
}

// each(at, by_lower, by_upper) for the ends of every one of n inputs.
template <class T, class Each>
GLSK_INLINE void fold_box(int64_t n, const BoxSums<T>& sums, const Each& each) {
  for (int64_t i = 0; i < n; ++i)
    each(i * LANES<T>, folded<T>(sums.by_input, sums.by_sample, 2 * n, 2 * i),
         folded<T>(sums.by_input, sums.by_sample, 2 * n, 2 * i + 1));
}

}  // namespace GLSK_ISA
}  // namespace glsk
