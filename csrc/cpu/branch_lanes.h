// Rows that lie anywhere, to lanes and back; sets of lanes as bits; Adam's direction.
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

// [n] vectors, `pitch` apart, to `count` rows of n, `row` apart.
template <class T>
void store_lanes(const T* from, int64_t pitch, int64_t n, int count, T* to, int64_t row) {
  constexpr int L = LANES<T>;
  for (int64_t i0 = 0; i0 < n; i0 += L) {
    const int width = n - i0 < L ? int(n - i0) : L;
    Vec<T> m[L];
#pragma GCC unroll 16
    for (int i = 0; i < L; ++i) m[i] = i < width ? load<T>(from + (i0 + i) * pitch) : Vec<T>{};
    transpose<T>(m);
    for (int s = 0; s < L && s < count; ++s) {
      T* at = to + s * row + i0;
      width == L ? store<T>(at, m[s]) : void(memcpy(at, &m[s], width * sizeof(T)));
    }
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
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return _mm512_movepi32_mask((__m512i)lanes);
  else
    return _mm512_movepi64_mask((__m512i)lanes);
#else
  uint32_t bits = 0;
  for (int s = 0; s < LANES<T>; ++s) bits |= uint32_t(lanes[s] != 0) << s;
  return bits;
#endif
}

// mean / (sqrt(square) + 1e-8), of square >= 0. Where divisions and roots take longest, by approximations refined once,
// to about the last bit.
template <class T>
GLSK_INLINE Vec<T> over_root(Vec<T> mean, Vec<T> square) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    const Vec<T> least = broadcast<T>(T(1e-37)), most = broadcast<T>(T(3e38));  // what keeps every step finite
    Vec<T> x = square < least ? least : square;
    x = x > most ? most : x;
    Vec<T> r = (Vec<T>)_mm512_maskz_rsqrt14_ps(0xffff, (__m512)x);
    r *= T(1.5) - T(0.5) * (x * r) * r;
    const Vec<T> d = x * r + T(1e-8);
    Vec<T> q = (Vec<T>)_mm512_maskz_rcp14_ps(0xffff, (__m512)d);
    q *= T(2) - d * q;
    return mean * q;
  }
#endif
  return mean / (square_root<T>(square) + T(1e-8));
}

}  // namespace GLSK_ISA
}  // namespace glsk
