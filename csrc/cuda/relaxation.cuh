// The two lines around a ReLU (DeepPoly), or the 0/1 mask of the hybrid zonotope, in the form the passes use.
#pragma once

#include "platform.cuh"
#include "types.h"

namespace glsk::cuda {

// lower_slope * v <= ReLU(v) <= upper_slope * v + intercept on [l, u].
template <class T>
struct Relaxation {
    T lower_slope, upper_slope, intercept;
};

template <class T>
__device__ __forceinline__ Relaxation<T> relax(T l, T u) {
    if (l >= T(0)) return {T(1), T(1), T(0)};
    if (u <= T(0)) return {T(0), T(0), T(0)};
    const T slope = u / (u - l);
    return {u > -l ? T(1) : T(0), slope, -slope * l};
}

// HBox: what stays an exact function of the input.
template <class T>
__device__ __forceinline__ Relaxation<T> mask(T l) {
    return {l >= T(0) ? T(1) : T(0), l >= T(0) ? T(1) : T(0), T(0)};
}

template <class T>
__device__ __forceinline__ const T* slice(const View& view, std::int64_t p, std::int64_t b) {
    return static_cast<const T*>(view.data) + p * view.member + b * view.sample;
}

// The relaxation after one unit of a layer, for one (member, sample); identity where no ReLU follows.
template <class T>
__device__ __forceinline__ Relaxation<T> relaxation_of(const Layer& layer, int hbox, std::int64_t p, std::int64_t b,
                                                       std::int64_t unit) {
    if (!layer.relu) return {T(1), T(1), T(0)};
    const T l = slice<T>(layer.lower, p, b)[unit];
    if (hbox) return mask(l);
    return relax(l, slice<T>(layer.upper, p, b)[unit]);
}

// What a coefficient of a ReLU's output is multiplied with, to become that of the pre-activation less its bias, and to
// be added to the row's constant. Lower bounds only: an upper bound is the negated lower bound of the negated row.
template <class T>
struct Steps {
    T slope, constant;                    // of a coefficient >= 0
    T negative_slope, negative_constant;  // of one < 0

    __device__ __forceinline__ Steps(const Relaxation<T>& r, T bias)
        : slope(r.lower_slope),
          constant(r.lower_slope * bias),
          negative_slope(r.upper_slope),
          negative_constant(r.upper_slope * bias + r.intercept) {}

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

// Centre and radius of one input value. HBox wants |J| r alone: centre 0 and radius -r make the result +|J| r.
template <class T>
__device__ __forceinline__ void center_radius(const Pass& pass, std::int64_t p, std::int64_t b, std::int64_t input,
                                              T& center, T& radius) {
    const T l = slice<T>(pass.x_lower, p, b)[input], u = slice<T>(pass.x_upper, p, b)[input];
    center = pass.hbox ? T(0) : (l + u) / 2;
    radius = pass.hbox ? (l - u) / 2 : (u - l) / 2;
}

}  // namespace glsk::cuda
