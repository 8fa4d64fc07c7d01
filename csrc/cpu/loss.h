// The robust cross-entropy of a population. It is bound by memory, so one build of it serves every instruction set.
#pragma once

#include <cstdint>

namespace glsk {

// margins [members, samples, rows] -> loss [members]
template <class T>
void robust_cross_entropy(const T* margins, int64_t members, int64_t samples, int64_t rows, T* loss, int threads);

// Its gradient: d_loss [members] -> d_margins, as margins.
template <class T>
void robust_cross_entropy_backward(const T* margins, const T* d_loss, int64_t members, int64_t samples, int64_t rows,
                                   T* d_margins, int threads);

}  // namespace glsk
