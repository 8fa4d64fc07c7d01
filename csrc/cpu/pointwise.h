// The small elementwise ops. They are bound by memory, so one build of them serves every instruction set.
#pragma once

#include <cstdint>

namespace glsk {

template <class T>
void relu_relaxation(const T* lower, const T* upper, int64_t n, T* lower_slope, T* upper_slope, T* intercept,
                     int threads);

template <class T>
void hbox_relu(const T* box_lower, const T* box_upper, const T* lower, const T* upper, int64_t n, T* out_lower,
               T* out_upper, int threads);

// margins [members, samples, rows] -> loss [members]
template <class T>
void robust_cross_entropy(const T* margins, int64_t members, int64_t samples, int64_t rows, T* loss, int threads);

}  // namespace glsk
