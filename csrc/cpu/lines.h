// The lines around an activation, from its bounds; and the gradient of that. The one place of this formula in C++; its
// twin is glsk/lines.
#pragma once

#include "cpu/simd.h"
#include "cpu/types.h"

namespace glsk {
namespace GLSK_ISA {

// How a vector of units' activations turn a coefficient a of their output into one of their input: slope, and constant
// per unit of a, for a >= 0 (the lower line) and for a < 0 (the upper line).
template <class T>
struct Lines {
  Vec<T> slope_pos, slope_neg, const_pos, const_neg;
};

// A layer's bias joins the constants: coefficients that have passed the activation meet it at once.
template <class T>
GLSK_INLINE Lines<T> with_shift(Lines<T> lines, T shift) {
  return {lines.slope_pos, lines.slope_neg, lines.const_pos + lines.slope_pos * shift,
          lines.const_neg + lines.slope_neg * shift};
}

// Half of b - a, and whether it is finite; the difference itself may overflow.
template <class T>
GLSK_INLINE Mask<T> finite_width(Vec<T> l, Vec<T> u) {
  return absolute<T>(u * T(0.5) - l * T(0.5)) < broadcast<T>(T(__builtin_inf()));
}

// u / (u - l) of an unstable unit, also where u - l overflows.
template <class T>
GLSK_INLINE Vec<T> chord(Vec<T> l, Vec<T> u) {
  const Vec<T> width = u - l, infinite = broadcast<T>(T(__builtin_inf()));
  return width < infinite ? u / width : u * T(0.5) / (u * T(0.5) - l * T(0.5));
}

// The ReLU of leak k is k z + (1 - k) ReLU(z), and so are its lines. Bounds that are NaN, infinite, or too far apart for
// their difference to be finite even halved, make every line NaN: no bound that meets them passes for one.
template <class T>
GLSK_INLINE Lines<T> relax(Vec<T> l, Vec<T> u, T leak, Rule rule) {
  const Vec<T> zero = {}, one = broadcast<T>(1), nan = broadcast<T>(T(__builtin_nan("")));
  Vec<T> neg = zero, pos = zero, constant = zero;  // of an unstable unit
  if (rule != MASK) {
    neg = chord<T>(l, u);
    pos = rule == PARALLEL ? neg : u <= -l ? zero : one;
    constant = -neg * l;
  }
  const Mask<T> inactive = u <= 0, active = l >= 0;
  neg = active ? one : inactive ? zero : neg;
  pos = active ? one : inactive ? zero : pos;
  constant = (active | inactive) ? zero : constant;
  if (leak != 0) {
    const T rest = 1 - leak;
    neg = neg * rest + leak;
    pos = pos * rest + leak;
    constant *= rest;
  }
  const Mask<T> good = finite_width<T>(l, u);
  return {good ? pos : nan, good ? neg : nan, good ? zero : nan, good ? constant : nan};
}

// Lines' gradients (by lower slope, upper slope and upper intercept, without shift) to those of the bounds they were
// made from. Only unstable units have any.
template <class T>
GLSK_INLINE void relax_gradient(Vec<T> l, Vec<T> u, T leak, Rule rule, Vec<T> by_lower_slope, Vec<T> by_slope,
                                Vec<T> by_intercept, Vec<T>& by_l, Vec<T>& by_u) {
  const Vec<T> zero = {};
  const Mask<T> unstable = rule == MASK ? Mask<T>{} : (l < 0) & (u > 0);
  if (rule == PARALLEL) by_slope += by_lower_slope;
  const Vec<T> s = chord<T>(l, u), one = broadcast<T>(1);
  const Vec<T> rest = broadcast<T>(1 - leak);
  // s = u / (u - l), t = -s l: ds/dl = s / (u - l), ds/du = (1 - s) / (u - l), dt = -l ds - s dl.
  const Vec<T> by_s = rest * (by_slope - by_intercept * l), width = u - l;
  by_l = unstable ? by_s * (s / width) - rest * by_intercept * s : zero;
  by_u = unstable ? by_s * ((one - s) / width) : zero;
}

// Centre and radius of [l, u]; half of each end first, since their sum or difference may overflow.
template <class T>
GLSK_INLINE Vec<T> middle(Vec<T> l, Vec<T> u) {
  return l * T(0.5) + u * T(0.5);
}

template <class T>
GLSK_INLINE Vec<T> half_width(Vec<T> l, Vec<T> u) {
  return u * T(0.5) - l * T(0.5);
}

// The uncorrelated box of a unit of a hybrid zonotope through its activation, as centre and radius: k times itself and
// (1 - k) times what a ReLU makes of it, where an unstable unit becomes its box.
template <class T>
GLSK_INLINE void hbox_unit(Vec<T> l, Vec<T> u, T leak, Vec<T>& c, Vec<T>& r) {
  const Vec<T> zero = {}, half = u * T(0.5), keep = broadcast<T>(leak), rest = broadcast<T>(1 - leak);
  c = keep * c + rest * (l >= 0 ? c : u <= 0 ? zero : half);
  r = keep * r + rest * (l >= 0 ? r : u <= 0 ? zero : half);
}

// An activation applied to a value.
template <class T>
GLSK_INLINE Vec<T> activate(Vec<T> z, T leak) {
  return z < 0 ? z * leak : z;
}

}  // namespace GLSK_ISA
}  // namespace glsk
