// The robust cross-entropy of a population. It is bound by memory, so one build of it serves every instruction set.
#pragma once

#include <cstdint>

namespace glsk {

// margins [members, samples, rows] -> loss [members]
template <class T>
void robust_cross_entropy(const T* margins, int64_t members, int64_t samples, int64_t rows, T* loss, int threads);

}  // namespace glsk
