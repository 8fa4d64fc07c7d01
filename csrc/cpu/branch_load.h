// Rows that lie anywhere, to lanes; and sets of lanes as bits.
#pragma once

#include "cpu/backstep.h"
#include "cpu/ibp.h"

namespace glsk {
namespace GLSK_ISA {

// rows [LANES][n] to [n] vectors, `pitch` apart.
template <class T>
void load_rows(const T* const (&rows)[LANES<T>], int64_t n, T* to, int64_t pitch) {
  constexpr int L = LANES<T>;
  bool same = true;
  for (int s = 1; s < L; ++s) same &= rows[s] == rows[0];
  if (same) {
    for (int64_t i = 0; i < n; ++i) store<T>(to + i * pitch, broadcast<T>(rows[0][i]));
    return;
  }
  for (int64_t i0 = 0; i0 < n; i0 += L) {
    const int width = n - i0 < L ? int(n - i0) : L;
    Vec<T> m[L];
    if (width == L) {
#pragma GCC unroll 16
      for (int s = 0; s < L; ++s) m[s] = load<T>(rows[s] + i0);
    } else {
      for (int s = 0; s < L; ++s) {
        m[s] = Vec<T>{};
        memcpy(&m[s], rows[s] + i0, width * sizeof(T));
      }
    }
    transpose<T>(m);
    for (int i = 0; i < width; ++i) store<T>(to + (i0 + i) * pitch, m[i]);
  }
}

// The lanes whose bits are set.
template <class T>
GLSK_INLINE Mask<T> lanes_of(uint32_t bits) {
  using Bit = decltype(Mask<T>{}[0] + 0);
  Mask<T> bit;
  for (int s = 0; s < LANES<T>; ++s) bit[s] = Bit(1) << s;
  return ((Mask<T>{} + Bit(bits)) & bit) != 0;
}

template <class T>
GLSK_INLINE uint32_t bits_of(Mask<T> lanes) {
  uint32_t bits = 0;
  for (int s = 0; s < LANES<T>; ++s) bits |= uint32_t(lanes[s] != 0) << s;
  return bits;
}

}  // namespace GLSK_ISA
}  // namespace glsk
