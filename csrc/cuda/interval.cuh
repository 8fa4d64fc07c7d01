// What interval bound propagation and its gradient share: how a box is read.
#pragma once

#include "relaxation.cuh"

namespace glsk::cuda {

// Centre and radius of one input, after the activation if there is one.
template <class T>
__device__ __forceinline__ void read_box(const Interval& interval, std::int64_t p, std::int64_t b, std::int64_t input,
                                         T& center, T& radius) {
    T l = slice<T>(interval.lower, p, b)[input], u = slice<T>(interval.upper, p, b)[input];
    if (interval.relu) l = activation(l, T(interval.leak)), u = activation(u, T(interval.leak));
    center_radius(l, u, center, radius);
}

template <class T>
__device__ __forceinline__ T magnitude(T value) {
    return value < T(0) ? -value : value;
}

}  // namespace glsk::cuda
