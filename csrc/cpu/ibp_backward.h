// The gradient of interval bound propagation through one affine layer, in centre/radius form: c' = W c + b, r' = |W| r.
#pragma once

#include "cpu/ibp.h"
#include "cpu/outer.h"
#include "cpu/packed.h"
#include "cpu/sums.h"

namespace glsk {
namespace GLSK_ISA {

// N input channels from c0 at input pixel (y, x): W^T by the outputs' gradients. weight: packed by input.
template <class T, int N>
GLSK_INLINE void ibp_inputs(const Geometry& g, const T* weight, int pitch, const T* by_center, const T* by_radius,
                            int c0, int y, int x, T* in_center, T* in_radius) {
  constexpr int L = LANES<T>;
  const int64_t pixels = int64_t(g.oh) * g.ow;
  Vec<T> c[N] = {}, r[N] = {};
  for (int ky = (y + g.ph) % g.sh, oy = (y + g.ph) / g.sh; ky < g.kh && oy >= 0; ky += g.sh, --oy) {
    if (oy >= g.oh) continue;
    for (int kx = (x + g.pw) % g.sw, ox = (x + g.pw) / g.sw; kx < g.kw && ox >= 0; kx += g.sw, --ox) {
      if (ox >= g.ow) continue;
      const T* w = weight + (int64_t(ky) * g.kw + kx) * g.cout * pitch + c0;
      const int64_t at = (int64_t(oy) * g.ow + ox) * L;
      for (int o = 0; o < g.cout; ++o, w += pitch) {
        const Vec<T> dc = load<T>(by_center + at + o * pixels * L), dr = load<T>(by_radius + at + o * pixels * L);
#pragma GCC unroll 8
        for (int i = 0; i < N; ++i) {
          const Vec<T> value = broadcast<T>(w[i]);
          c[i] += value * dc;
          r[i] += absolute<T>(value) * dr;
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i) {
    if (c0 + i >= g.cin) break;
    const int64_t unit = ((int64_t(c0) + i) * g.h + y) * g.w + x;
    store<T>(in_center + unit * L, c[i]);
    store<T>(in_radius + unit * L, r[i]);
  }
}

// Gradients by the box of a layer's inputs, from those by centre and radius of its outputs, all [units][lanes].
template <class T>
void ibp_layer_inputs(const Geometry& g, const T* packed, const T* by_center, const T* by_radius, T* in_center,
                      T* in_radius) {
  const int block = gather_block(g), pitch = gather_pitch(g);
  for (int y = 0; y < g.h; ++y)
    for (int x = 0; x < g.w; ++x)
      for (int c0 = 0; c0 < g.cin; c0 += block) switch (block) {
          case 1: ibp_inputs<T, 1>(g, packed, pitch, by_center, by_radius, c0, y, x, in_center, in_radius); break;
          case 4: ibp_inputs<T, 4>(g, packed, pitch, by_center, by_radius, c0, y, x, in_center, in_radius); break;
          default: ibp_inputs<T, LARGEST_BLOCK>(g, packed, pitch, by_center, by_radius, c0, y, x, in_center, in_radius);
        }
}

// The weights' and the bias's share of it.
template <class T>
void ibp_layer_weights(const Geometry& g, const T* by_center, const T* by_radius, const T* center, const T* radius,
                       const LayerSums<T>& sums) {
  constexpr int L = LANES<T>;
  const int64_t pixels = int64_t(g.oh) * g.ow, in_pixels = int64_t(g.h) * g.w;
  const Window out = {0, g.oh, 0, g.ow}, in = {0, g.h, 0, g.w};
  if (sums.weight) Outer<T, 1, false>(g, {by_center, out, 1, pixels}, {center, in, 1, in_pixels}).add_to(sums.weight);
  if (sums.radius_weight)
    Outer<T, 1, false>(g, {by_radius, out, 1, pixels}, {radius, in, 1, in_pixels}).add_to(sums.radius_weight);
  if (sums.bias)
    for (int o = 0; o < g.cout; ++o) {
      Vec<T> sum = load<T>(sums.bias + o * L);
      for (int64_t i = 0; i < pixels; ++i) sum += load<T>(by_center + (o * pixels + i) * L);
      store<T>(sums.bias + o * L, sum);
    }
}

// From gradients by bounds to those by centre and radius, n units; in place if wanted.
template <class T>
void by_bounds_to_box(const T* by_lower, const T* by_upper, int64_t n, T* by_center, T* by_radius) {
  for (int64_t i = 0; i < n * LANES<T>; i += LANES<T>) {
    const Vec<T> l = load<T>(by_lower + i), u = load<T>(by_upper + i);
    store<T>(by_center + i, l + u);
    store<T>(by_radius + i, u - l);
  }
}

// Through an activation on both ends, from centre and radius after it to the bounds before it: added to by_lower and
// by_upper.
template <class T>
void activation_backward(const T* lower, const T* upper, T leak, int64_t n, const T* by_center, const T* by_radius,
                         T* by_lower, T* by_upper) {
  const Vec<T> one = broadcast<T>(1), below = broadcast<T>(leak);
  for (int64_t i = 0; i < n * LANES<T>; i += LANES<T>) {
    const Vec<T> c = load<T>(by_center + i), r = load<T>(by_radius + i);
    const Vec<T> l = load<T>(lower + i), u = load<T>(upper + i);
    store<T>(by_lower + i, load<T>(by_lower + i) + (l >= 0 ? one : below) * (c - r) * T(0.5));
    store<T>(by_upper + i, load<T>(by_upper + i) + (u >= 0 ? one : below) * (c + r) * T(0.5));
  }
}

}  // namespace GLSK_ISA
}  // namespace glsk
