// Interval bound propagation through one affine layer. A vector's lanes are samples: they share the weights, which are
// broadcast, so any layer shape uses whole vectors.
#pragma once

#include "cpu/lanes.h"
#include "cpu/lines.h"
#include "cpu/parallel.h"
#include "cpu/types.h"

namespace glsk {
namespace GLSK_ISA {

// Output channels accumulated together: centre and radius each, half the registers.
constexpr int BLOCK = GLSK_VECTOR_REGISTERS / 4;

// How a unit is stored: its bounds, or centre and radius of its box after the activation, which the next layer reads.
enum Form { BOUNDS, BOX, BOX_AFTER_ACTIVATION };

// A centre that is infinite says nothing of where the unit is, and stays visible behind the activation as NaN.
template <class T, Form FORM>
GLSK_INLINE void store_unit(Vec<T> c, Vec<T> r, T leak, T* first, T* second) {
  if (FORM == BOX_AFTER_ACTIVATION) {
    const Vec<T> l = activate<T>(c - r, leak) + (c - c), u = activate<T>(c + r, leak);
    c = middle<T>(l, u);
    r = half_width<T>(l, u);
  }
  store<T>(first, FORM == BOUNDS ? c - r : c);
  store<T>(second, FORM == BOUNDS ? c + r : r);
}

// n units' bounds to centre and radius (after an activation); in place if wanted.
template <class T, Form FORM>
inline void to_box(const T* lower, const T* upper, int64_t n, T leak, T* center, T* radius) {
  for (int64_t i = 0; i < n * LANES<T>; i += LANES<T>) {
    Vec<T> l = load<T>(lower + i), u = load<T>(upper + i);
    if (FORM == BOX_AFTER_ACTIVATION) {
      const Vec<T> c = middle<T>(l, u);
      l = activate<T>(l, leak) + (c - c);
      u = activate<T>(u, leak);
    }
    const Vec<T> c = middle<T>(l, u);
    store<T>(radius + i, half_width<T>(l, u));
    store<T>(center + i, c);
  }
}

// N output channels from o at one position (oy, ox).
template <class T, int N, Form FORM>
GLSK_INLINE void outputs(const Layer<T>& layer, const T* center, const T* radius, int o, int oy, int ox, T* lower,
                         T* upper) {
  const Geometry& g = layer.g;
  const T *weight = layer.weight, *bias = layer.bias;
  constexpr int L = LANES<T>;
  const int y0 = oy * g.sh - g.ph, x0 = ox * g.sw - g.pw;
  const int ky0 = y0 < 0 ? -y0 : 0, ky1 = y0 + g.kh > g.h ? g.h - y0 : g.kh;
  const int kx0 = x0 < 0 ? -x0 : 0, kx1 = x0 + g.kw > g.w ? g.w - x0 : g.kw;
  const int64_t taps = int64_t(g.cin) * g.kh * g.kw;
  Vec<T> c[N], r[N];
#pragma GCC unroll 16
  for (int i = 0; i < N; ++i) {
    c[i] = broadcast<T>(bias ? bias[o + i] : T(0));
    r[i] = Vec<T>{};
  }
  for (int ci = 0; ci < g.cin; ++ci) {
    for (int ky = ky0; ky < ky1; ++ky) {
      const int64_t at = (int64_t(ci) * g.h + y0 + ky) * g.w + x0;
      const T* w = weight + int64_t(o) * taps + (int64_t(ci) * g.kh + ky) * g.kw;
      for (int kx = kx0; kx < kx1; ++kx) {
        const Vec<T> xc = load<T>(center + (at + kx) * L), xr = load<T>(radius + (at + kx) * L);
#pragma GCC unroll 16
        for (int i = 0; i < N; ++i) {
          const Vec<T> value = broadcast<T>(w[i * taps + kx]);
          c[i] += value * xc;
          r[i] += absolute<T>(value) * xr;
        }
      }
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < N; ++i) {
    const int64_t unit = (int64_t(o + i) * g.oh + oy) * g.ow + ox;
    store_unit<T, FORM>(c[i], r[i], layer.leak, lower + unit * L, upper + unit * L);
  }
}

// A layer of the loaded member over a box in centre/radius form.
template <class T, Form FORM = BOUNDS>
inline void ibp_layer(const Layer<T>& layer, const T* center, const T* radius, T* lower, T* upper) {
  const Geometry& g = layer.g;
  int o = 0;
  for (; o + BLOCK <= g.cout; o += BLOCK)
    for (int oy = 0; oy < g.oh; ++oy)
      for (int ox = 0; ox < g.ow; ++ox) outputs<T, BLOCK, FORM>(layer, center, radius, o, oy, ox, lower, upper);
  for (; o < g.cout; ++o)
    for (int oy = 0; oy < g.oh; ++oy)
      for (int ox = 0; ox < g.ow; ++ox) outputs<T, 1, FORM>(layer, center, radius, o, oy, ox, lower, upper);
}

template <class T>
Layer<T> of_member(const Layer<T>& layer, int64_t p) {
  Layer<T> one = layer;
  one.weight += p * layer.weight_stride;
  if (one.bias) one.bias += p * layer.bias_stride;
  return one;
}

template <class T>
bool run_ibp(const IbpArgs<T>& a) {
  constexpr int L = LANES<T>;
  const int64_t n = a.layer.g.inputs(), m = a.layer.g.outputs();
  const int64_t per_thread = 2 * (n + m) * L;
  const int64_t tiles = (a.samples + L - 1) / L, tasks = tiles * a.members;
  const int threads = tasks < a.threads ? int(tasks) : a.threads;
  T* scratch = allocate<T>(per_thread * threads);
  if (!scratch) return false;
  // Consecutive tasks share a tile of samples, so that members with a common box transpose it once.
  parallel_ranges(threads, tasks, [&](int thread, int64_t first, int64_t last) {
    T* center = scratch + per_thread * thread;
    T *radius = center + n * L, *lower = radius + n * L, *upper = lower + m * L;
    int64_t held = -1;
    for (int64_t task = first; task < last; ++task) {
      const int64_t tile = task / a.members, p = task % a.members, b = tile * L;
      const int count = a.samples - b < L ? int(a.samples - b) : L;
      if (a.in_stride || tile != held) {
        const int64_t at = p * a.in_stride + b * n;
        load_lanes<T>(a.in_lower + at, a.in_upper + at, int(n), count, center, radius);
        a.relu ? to_box<T, BOX_AFTER_ACTIVATION>(center, radius, n, a.in_leak, center, radius)
               : to_box<T, BOX>(center, radius, n, T(1), center, radius);
        held = tile;
      }
      ibp_layer<T>(of_member(a.layer, p), center, radius, lower, upper);
      const int64_t out = (p * a.samples + b) * m;
      store_rows<T>(lower, int(m), count, a.lower + out);
      store_rows<T>(upper, int(m), count, a.upper + out);
    }
  });
  free(scratch);
  return true;
}

}  // namespace GLSK_ISA
}  // namespace glsk
