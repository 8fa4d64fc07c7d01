// One unit that has a dual: how a row passes it on the way down; its value and its dual's step on the way up.
#pragma once

#include "cpu/branch_layer.h"

namespace glsk {
namespace GLSK_ISA {

// Adam's step from one iteration to the next.
template <class T>
struct AdamStep {
  T alpha, beta;  // rates over 1 - 0.9^t
  T correction;   // 1 / (1 - 0.999^t)
};

template <class T>
GLSK_INLINE Vec<T> lower_slope(T rest, const Roles& role, Vec<T> q, Vec<T> s) {
  return lanes_of<T>(role.free) ? (1 - rest) + rest * q : s;
}

template <class T, int V>
GLSK_INLINE void keep_best(T* record, Mask<T> better) {
  constexpr int VL = V * LANES<T>;
  store<T>(record + BEST * VL, better ? load<T>(record + DUAL * VL) : load<T>(record + BEST * VL));
}

// Coefficients of one unit through its lines. ALONE: where there is a plane above it, it has no upper line.
template <class T, int V, bool ALONE>
GLSK_INLINE void descend(T rest, const T* in, T bias, T* record, const Roles* roles, T* out, Vec<T> (&sum)[V]) {
  constexpr int L = LANES<T>, VL = V * L;
  const Vec<T> zero = {};
#pragma GCC unroll 2
  for (int v = 0; v < V; ++v, record += L) {
    const Vec<T> a = load<T>(in + v * L), q = load<T>(record + DUAL * VL), s = load<T>(record + SLOPE * VL);
    const Vec<T> negative = a < 0 ? a : zero;
    Vec<T> above = s, intercept = load<T>(record + INTERCEPT * VL);
    if (roles[v].above) {
      const Vec<T> part = lanes_of<T>(roles[v].above) ? (ALONE ? zero : q) : broadcast<T>(1);
      above *= part;
      intercept *= part;
    }
    Vec<T> through = a * (a < 0 ? above : lower_slope<T>(rest, roles[v], q, s));
    sum[v] += negative * intercept;
    if (roles[v].active | roles[v].inactive) {
      through -= lanes_of<T>(roles[v].active) ? q : zero;
      through += lanes_of<T>(roles[v].inactive) ? q : zero;
    }
    sum[v] += through * bias;
    store<T>(record + COEFFICIENT * VL, a);
    store<T>(out + v * L, through);
  }
}

// A unit's value from that of its input, and its duals' step. plane: the value of that above it, if there is one.
template <class T, int V, bool ALONE>
GLSK_INLINE void ascend(T rest, const T* in, T bias, const T* plane, T* record, const Roles* roles,
                        const AdamStep<T>& step, const Mask<T> (&better)[V], T* out) {
  constexpr int L = LANES<T>, VL = V * L;
  const Vec<T> zero = {}, one = broadcast<T>(1);
#pragma GCC unroll 2
  for (int v = 0; v < V; ++v, record += L) {
    const Vec<T> a = load<T>(record + COEFFICIENT * VL), q = load<T>(record + DUAL * VL);
    const Vec<T> s = load<T>(record + SLOPE * VL), y = load<T>(in + v * L) + bias;
    const Mask<T> free = lanes_of<T>(roles[v].free);
    Vec<T> least = y * lower_slope<T>(rest, roles[v], q, s), most = y * s + load<T>(record + INTERCEPT * VL);
    Vec<T> by = (free & (a > 0)) ? a * y * rest : zero, rate = broadcast<T>(step.alpha);
    if (roles[v].above) {
      const Mask<T> some = lanes_of<T>(roles[v].above);
      const Vec<T> p = load<T>(plane + v * L);
      if (!ALONE) by = (some & (a < 0)) ? a * (most - p) : by;
      most = some ? (ALONE ? p : q * most + (1 - q) * p) : most;
    }
    store<T>(out + v * L, a < 0 ? most : least);
    const bool split = roles[v].active | roles[v].inactive;
    if (split) {
      const Mask<T> active = lanes_of<T>(roles[v].active), inactive = lanes_of<T>(roles[v].inactive);
      by = active ? -y : inactive ? y : by;
      rate = free ? rate : broadcast<T>(step.beta);
    }
    const Vec<T> mean = load<T>(record + MEAN * VL) * T(0.9) + by * T(0.1);
    const Vec<T> square = load<T>(record + SQUARE * VL) * T(0.999) + by * by * T(0.001);
    keep_best<T, V>(record, better[v]);
    store<T>(record + MEAN * VL, mean);
    store<T>(record + SQUARE * VL, square);
    Vec<T> next = q + rate * over_root<T>(mean, square * step.correction);
    next = next < 0 ? zero : next;
    next = (next > one) & free ? one : next;
    store<T>(record + DUAL * VL, next);
  }
}

}  // namespace GLSK_ISA
}  // namespace glsk
