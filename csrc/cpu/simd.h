// Vectors of the instruction set this file is compiled for, by the vector extensions of GCC and Clang.
//
// Files named *.isa.cpp are compiled once an instruction set, with GLSK_ISA its name. Everything here and in them lives
// in a namespace of that name, and they use no standard containers: a template instantiated with AVX-512 code must never
// be the copy that the linker keeps for a machine without it.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

// Bounds that overflow are found by NaN and infinity; docs/soundness.md needs them too.
#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__)
#error "glsk must not be compiled with -ffast-math or -ffinite-math-only"
#endif

#if defined(__AVX512F__)
#define GLSK_VECTOR_BYTES 64
#define GLSK_VECTOR_REGISTERS 32
#elif defined(__AVX2__)
#define GLSK_VECTOR_BYTES 32
#define GLSK_VECTOR_REGISTERS 16
#else
#define GLSK_VECTOR_BYTES 16
#define GLSK_VECTOR_REGISTERS 16
#endif

#define GLSK_INLINE inline __attribute__((always_inline))
#define GLSK_LAMBDA_INLINE __attribute__((always_inline))

namespace glsk {
namespace GLSK_ISA {

template <class T>
struct Simd;
template <>
struct Simd<float> {
  typedef float vec __attribute__((vector_size(GLSK_VECTOR_BYTES)));
  typedef int32_t mask __attribute__((vector_size(GLSK_VECTOR_BYTES)));
};
template <>
struct Simd<double> {
  typedef double vec __attribute__((vector_size(GLSK_VECTOR_BYTES)));
  typedef int64_t mask __attribute__((vector_size(GLSK_VECTOR_BYTES)));
};
template <class T>
using Vec = typename Simd<T>::vec;
template <class T>
using Mask = typename Simd<T>::mask;
template <class T>
constexpr int LANES = GLSK_VECTOR_BYTES / sizeof(T);

template <class T>
GLSK_INLINE Vec<T> load(const T* p) {
  Vec<T> v;
  memcpy(&v, p, sizeof v);
  return v;
}

template <class T>
GLSK_INLINE void store(T* p, Vec<T> v) {
  memcpy(p, &v, sizeof v);
}

template <class T>
GLSK_INLINE Vec<T> broadcast(T x) {
  return x - Vec<T>{};  // x - 0 is x for every x; x + 0 is not, for x = -0
}

// One of two scalars a lane: `negative` where a < 0, else `positive` (also where a is NaN, which then stays NaN).
template <class T>
GLSK_INLINE Vec<T> by_sign(Vec<T> a, T negative, T positive) {
  return a < 0 ? broadcast<T>(negative) : broadcast<T>(positive);
}

template <class T>
GLSK_INLINE Vec<T> absolute(Vec<T> a) {
  constexpr auto sign = sizeof(T) == 4 ? int64_t(INT32_MIN) : INT64_MIN;
  return (Vec<T>)((Mask<T>)a & ~(Mask<T>{} + decltype(Mask<T>{}[0] + 0)(sign)));
}

// Lane by lane, of numbers >= 0.
template <class T>
GLSK_INLINE Vec<T> square_root(Vec<T> a) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return (Vec<T>)_mm512_maskz_sqrt_ps(0xffff, (__m512)a);
  else
    return (Vec<T>)_mm512_maskz_sqrt_pd(0xff, (__m512d)a);
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4)
    return (Vec<T>)_mm256_sqrt_ps((__m256)a);
  else
    return (Vec<T>)_mm256_sqrt_pd((__m256d)a);
#else
  for (int i = 0; i < LANES<T>; ++i) a[i] = sizeof(T) == 4 ? __builtin_sqrtf(float(a[i])) : __builtin_sqrt(a[i]);
  return a;
#endif
}

// Whether any lane of a comparison holds.
template <class T>
GLSK_INLINE bool any(Mask<T> m) {
  uint64_t words[sizeof m / 8], found = 0;
  memcpy(words, &m, sizeof m);
  for (uint64_t word : words) found |= word;
  return found != 0;
}

// Transposes a LANES x LANES block held in registers, by log2(LANES) rounds of exchanges at distance D.
template <class T, int D>
GLSK_INLINE void transpose_round(Vec<T> (&m)[LANES<T>]) {
  constexpr int L = LANES<T>;
  Mask<T> low, high;
  for (int i = 0; i < L; ++i) {
    low[i] = (i & D) ? L + i - D : i;
    high[i] = (i & D) ? L + i : i + D;
  }
#pragma GCC unroll 16
  for (int i = 0; i < L; ++i) {
    if (!(i & D)) {
      Vec<T> a = m[i], b = m[i + D];
      m[i] = __builtin_shuffle(a, b, low);
      m[i + D] = __builtin_shuffle(a, b, high);
    }
  }
}

template <class T>
GLSK_INLINE void transpose(Vec<T> (&m)[LANES<T>]) {
  constexpr int L = LANES<T>;
  if constexpr (L > 8) transpose_round<T, 8>(m);
  if constexpr (L > 4) transpose_round<T, 4>(m);
  if constexpr (L > 2) transpose_round<T, 2>(m);
  transpose_round<T, 1>(m);
}

// to[0..4 LANES) = a[0], b[0], c[0], d[0], a[1], b[1], ...
template <class T>
GLSK_INLINE void store_interleaved(Vec<T> a, Vec<T> b, Vec<T> c, Vec<T> d, T* to) {
  constexpr int L = LANES<T>;
  if constexpr (L < 4) {
    for (int i = 0; i < L; ++i) {
      to[4 * i] = a[i];
      to[4 * i + 1] = b[i];
      to[4 * i + 2] = c[i];
      to[4 * i + 3] = d[i];
    }
  } else {
    Mask<T> one[2], two[2];  // the first and the second half of an interleaving, by ones and by twos
    for (int half = 0; half < 2; ++half)
      for (int i = 0; i < L; ++i) {
        one[half][i] = half * L / 2 + i / 2 + (i % 2) * L;
        two[half][i] = half * L / 2 + i / 4 * 2 + i % 2 + (i / 2 % 2) * L;
      }
    for (int half = 0; half < 2; ++half) {
      const Vec<T> ab = __builtin_shuffle(a, b, one[half]), cd = __builtin_shuffle(c, d, one[half]);
      store<T>(to + (2 * half) * L, __builtin_shuffle(ab, cd, two[0]));
      store<T>(to + (2 * half + 1) * L, __builtin_shuffle(ab, cd, two[1]));
    }
  }
}

}  // namespace GLSK_ISA
}  // namespace glsk
