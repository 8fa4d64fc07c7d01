// The two lines around an activation, and how a coefficient of its output goes through them.
#pragma once

#include "platform.cuh"
#include "types.h"

namespace glsk::cuda {

// lower_slope * v + lower_intercept <= act(v) <= upper_slope * v + upper_intercept on [l, u].
template <class T>
struct Lines {
    T lower_slope, lower_intercept, upper_slope, upper_intercept;
};

template <class T>
__device__ __forceinline__ T largest_finite();
template <>
__device__ __forceinline__ float largest_finite<float>() {
    return 3.402823466e+38f;
}
template <>
__device__ __forceinline__ double largest_finite<double>() {
    return 1.7976931348623157e+308;
}

// 0, or NaN where an end is not finite: added to what is made of bounds, so that a bound which is none shows.
template <class T>
__device__ __forceinline__ T poison(T l, T u) {
    return (l - l) + (u - u);
}

// A number divided by the width of [l, u]. By half of both only where the width overflows: halves would lose the last bit
// of a denormal.
template <class T>
__device__ __forceinline__ T by_width(T value, T l, T u) {
    const T width = u - l;
    return width <= largest_finite<T>() ? value / width : value / 2 / (u / 2 - l / 2);
}

// The lines around a ReLU. adaptive: DeepPoly's, CROWN's; parallel: DeepZ's; mask: the 0/1 mask of the hybrid zonotope,
// what stays an exact function of the input.
template <class T>
__device__ __forceinline__ Lines<T> relu_lines(Rule rule, T l, T u) {
    const T none = poison(l, u);
    if (l >= T(0)) return {T(1) + none, none, T(1) + none, none};
    if (u <= T(0) || rule == Rule::mask) return {none, none, none, none};
    const T slope = by_width(u, l, u) + none;
    return {rule == Rule::parallel ? slope : (u > -l ? T(1) : T(0)) + none, none, slope, -slope * l};
}

// LeakyReLU(z) = leak z + (1 - leak) ReLU(z).
template <class T>
__device__ __forceinline__ Lines<T> lines_from_bounds(Rule rule, T leak, T l, T u) {
    const Lines<T> r = relu_lines(rule, l, u);
    const T rest = T(1) - leak;
    return {leak + rest * r.lower_slope, rest * r.lower_intercept, leak + rest * r.upper_slope,
            rest * r.upper_intercept};
}

// What a gradient of the lines is for the bounds that they were made from: only lines of unstable units depend on them.
template <class T>
struct Ends {
    T lower, upper;
};
template <class T>
__device__ __forceinline__ Ends<T> gradient_of_bounds(Rule rule, T leak, T l, T u, const Lines<T>& gradient) {
    if (!(l < T(0) && u > T(0)) || rule == Rule::mask) return {T(0), T(0)};
    const T rest = T(1) - leak, intercept = rest * gradient.upper_intercept;
    const T slope = rest * (gradient.upper_slope + (rule == Rule::parallel ? gradient.lower_slope : T(0)));
    const T up = by_width(u, l, u), down = by_width(-l, l, u);
    return {by_width(slope * up, l, u) - intercept * up * up, by_width(slope * down, l, u) + intercept * down * down};
}

template <class T>
__device__ __forceinline__ T activation(T value, T leak) {
    return value < T(0) ? leak * value : value;  // NaN stays, and of -infinity a plain ReLU makes it
}

template <class T>
__device__ __forceinline__ const T* slice(const View& view, std::int64_t p, std::int64_t b) {
    return static_cast<const T*>(view.data) + p * view.member + b * view.sample;
}
template <class T>
__device__ __forceinline__ const T* lower_of(const Around& around, std::int64_t p, std::int64_t b) {
    return static_cast<const T*>(around.lower) + p * around.member + b * around.sample;
}
template <class T>
__device__ __forceinline__ const T* upper_of(const Around& around, std::int64_t p, std::int64_t b) {
    return static_cast<const T*>(around.upper) + p * around.member + b * around.sample;
}

// The lines after one unit of a layer, for one (member, sample) and, where lines differ by it, one row of the pass.
template <class T>
__device__ __forceinline__ Lines<T> lines_of(const Layer& layer, Rule rule, std::int64_t p, std::int64_t b,
                                             std::int64_t unit, int row = 0) {
    if (!layer.relu) return {T(1), T(0), T(1), T(0)};
    const T* at = lower_of<T>(layer.around, p, b) + unit;
    if (layer.around.are_lines()) {
        at += row * layer.around.row;
        return {at[0], at[layer.around.line], at[2 * layer.around.line], at[3 * layer.around.line]};
    }
    return lines_from_bounds(rule, T(layer.leak), *at, upper_of<T>(layer.around, p, b)[unit]);
}

// What a coefficient of an activation's output is multiplied with, to become that of the pre-activation less its bias,
// and to be added to the row's constant. Lower bounds only: an upper bound is the negated lower bound of the negated
// row.
template <class T>
struct Steps {
    T slope, constant;                    // of a coefficient >= 0
    T negative_slope, negative_constant;  // of one < 0

    __device__ __forceinline__ Steps(const Lines<T>& lines, T bias)
        : slope(lines.lower_slope),
          constant(lines.lower_slope * bias + lines.lower_intercept),
          negative_slope(lines.upper_slope),
          negative_constant(lines.upper_slope * bias + lines.upper_intercept) {}

    __device__ __forceinline__ T apply(T a, T& sum) const {
        sum += a * (a < T(0) ? negative_constant : constant);
        return a * (a < T(0) ? negative_slope : slope);
    }
};

template <class T>
__device__ __forceinline__ const T* weight_of(const Layer& layer, std::int64_t p) {
    return static_cast<const T*>(layer.weight) + p * layer.weight_member;
}

template <class T>
__device__ __forceinline__ T bias_of(const Layer& layer, std::int64_t p, int channel) {
    return layer.bias == nullptr ? T(0) : static_cast<const T*>(layer.bias)[p * layer.bias_member + channel];
}

// A lower bound, NaN where an overflow has made it absurd: nothing finite lies above +infinity.
template <class T>
__device__ __forceinline__ T sound(T lower) {
    return lower > largest_finite<T>() ? lower - lower : lower;
}

// Centre and radius of an interval; of finite ends they are finite.
template <class T>
__device__ __forceinline__ void center_radius(T l, T u, T& center, T& radius) {
    center = l / 2 + u / 2;
    radius = u / 2 - l / 2;
}

// Of one input value.
template <class T>
__device__ __forceinline__ void center_radius(const Pass& pass, std::int64_t p, std::int64_t b, std::int64_t input,
                                              T& center, T& radius) {
    center_radius(slice<T>(pass.x_lower, p, b)[input], slice<T>(pass.x_upper, p, b)[input], center, radius);
}

}  // namespace glsk::cuda
