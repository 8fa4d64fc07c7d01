// Rows of samples to lanes, a lane a sample, and back.
#pragma once

#include "cpu/simd.h"

namespace glsk {
namespace GLSK_ISA {

// [samples, n] rows, `count` of them, `pitch` apart, to lanes: [n][LANES]; zeros in the other lanes.
template <class T>
inline void load_lanes(const T* rows, int n, int count, T* to, int64_t pitch) {
  constexpr int L = LANES<T>;
  for (int i0 = 0; i0 < n; i0 += L) {
    const int width = n - i0 < L ? n - i0 : L;
    Vec<T> m[L];
    if (width == L && count == L) {  // the common case, without a call a row
#pragma GCC unroll 16
      for (int s = 0; s < L; ++s) m[s] = load<T>(rows + int64_t(s) * pitch + i0);
    } else {
      for (int s = 0; s < L; ++s) {
        m[s] = Vec<T>{};
        if (s < count) memcpy(&m[s], rows + int64_t(s) * pitch + i0, width * sizeof(T));
      }
    }
    transpose<T>(m);
    for (int i = 0; i < width; ++i) store<T>(to + int64_t(i0 + i) * L, m[i]);
  }
}

// Two arrays of such rows.
template <class T>
inline void load_lanes(const T* lower, const T* upper, int n, int count, T* to_lower, T* to_upper, int64_t pitch) {
  load_lanes<T>(lower, n, count, to_lower, pitch);
  load_lanes<T>(upper, n, count, to_upper, pitch);
}

template <class T>
inline void load_lanes(const T* lower, const T* upper, int n, int count, T* to_lower, T* to_upper) {
  load_lanes<T>(lower, upper, n, count, to_lower, to_upper, n);
}

// Lanes back to [samples, n] rows, `pitch` apart.
template <class T>
inline void store_rows(const T* lanes, int n, int count, T* out, int64_t pitch) {
  constexpr int L = LANES<T>;
  for (int i0 = 0; i0 < n; i0 += L) {
    const int width = n - i0 < L ? n - i0 : L;
    Vec<T> m[L];
#pragma GCC unroll 16
    for (int i = 0; i < L; ++i) m[i] = i < width ? load<T>(lanes + int64_t(i0 + i) * L) : Vec<T>{};
    transpose<T>(m);
    for (int s = 0; s < L && s < count; ++s) {
      T* to = out + int64_t(s) * pitch + i0;
      width == L ? store<T>(to, m[s]) : void(memcpy(to, &m[s], width * sizeof(T)));
    }
  }
}

template <class T>
inline void store_rows(const T* lanes, int n, int count, T* out) {
  store_rows<T>(lanes, n, count, out, n);
}

}  // namespace GLSK_ISA
}  // namespace glsk
