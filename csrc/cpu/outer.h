// Sums of outer products, which weights' gradients are made of: over pixels, vectors and lanes, of coefficients on a
// layer's outputs and the values on its inputs. Lanes are summed in registers; only sums go to memory.
#pragma once

#include "cpu/backstep.h"

namespace glsk {
namespace GLSK_ISA {

// Output channels and kernel taps of one block of sums; a whole number of vectors.
constexpr int OUTER_CHANNELS = GLSK_VECTOR_REGISTERS == 32 ? 8 : 4, OUTER_TAPS = 2;
constexpr int OUTER_BLOCK = OUTER_CHANNELS * OUTER_TAPS;

// One vector of the lanes' sums of LANES vectors, in order.
template <class T, int D>
GLSK_INLINE void fold_lanes(Vec<T>* m) {
  constexpr int L = LANES<T>;
  Mask<T> low, high;
  for (int i = 0; i < L; ++i) {
    low[i] = (i & D) ? L + i - D : i;
    high[i] = (i & D) ? L + i : i + D;
  }
#pragma GCC unroll 8
  for (int i = 0; i < D; ++i) m[i] = __builtin_shuffle(m[i], m[i + D], low) + __builtin_shuffle(m[i], m[i + D], high);
}

template <class T>
GLSK_INLINE Vec<T> sums_of_lanes(Vec<T>* m) {
  constexpr int L = LANES<T>;
  if constexpr (L > 8) fold_lanes<T, 8>(m);
  if constexpr (L > 4) fold_lanes<T, 4>(m);
  if constexpr (L > 2) fold_lanes<T, 2>(m);
  fold_lanes<T, 1>(m);
  return m[0];
}

// Values on an image: [pixel][V][lanes] at `pixel` and `channel` vectors' distance.
template <class T>
struct Image {
  const T* at;     // of the window's first pixel
  Window window;   // what is there; nothing outside of it is read
  int64_t pixel, channel;
};

// A layer's gradient in blocks of sums: [blocks of output channels][pairs of taps][tap][channel].
inline int64_t outer_pairs(const Geometry& g) { return (g.taps() + OUTER_TAPS - 1) / OUTER_TAPS; }
inline int64_t outer_size(const Geometry& g) {
  return (g.cout + OUTER_CHANNELS - 1) / OUTER_CHANNELS * outer_pairs(g) * OUTER_BLOCK;
}

// Adds the blocks of output channels o0..o1 (whole blocks), times the sign of the weight where weights are given, to
// [cout][cin][kh][kw].
template <class T>
void add_outer(const Geometry& g, const T* blocks, const T* signs, int o0, int o1, T* to) {
  const int64_t positions = int64_t(g.kh) * g.kw, taps = g.taps();
  for (int o = o0; o < o1; o += OUTER_CHANNELS) {
    const T* block = blocks + o / OUTER_CHANNELS * outer_pairs(g) * OUTER_BLOCK;
    const int width = o1 - o < OUTER_CHANNELS ? o1 - o : OUTER_CHANNELS;
    for (int i = 0; i < width; ++i)
      for (int64_t c = 0; c < g.cin; ++c)
        for (int64_t k = 0, t = c; k < positions; ++k, t += g.cin) {
          const int64_t at = (o + i) * taps + c * positions + k;
          const T value = block[t / OUTER_TAPS * OUTER_BLOCK + t % OUTER_TAPS * OUTER_CHANNELS + i];
          to[at] += !signs ? value : signs[at] > 0 ? value : signs[at] < 0 ? -value : T(0);
        }
  }
}

// PACKED: coefficients are [pixel of out][cout][V], as back-substitution leaves them.
template <class T, int V, bool PACKED = true>
class Outer {
 public:
  // coef: on the layer's outputs; values: on its inputs.
  Outer(const Geometry& g_, Image<T> coef_, Image<T> values_) : g(g_), coef(coef_), values(values_) {}

  void add_to(T* blocks) const {
    const int64_t taps = g.taps();
    for (int o = 0; o < g.cout; o += OUTER_CHANNELS)
      for (int64_t t = 0; t < taps; t += OUTER_TAPS, blocks += OUTER_BLOCK)
        o + OUTER_CHANNELS <= g.cout ? block<true>(o, t, taps, blocks) : block<false>(o, t, taps, blocks);
  }

 private:
  static constexpr int L = LANES<T>, N = OUTER_CHANNELS;
  const Geometry& g;
  const Image<T> coef, values;

  // The outputs whose tap (ky, kx) lies on values that are there.
  Window reached(int ky, int kx) const {
    Window w = coef.window;
    while (w.y0 < w.y1 && w.y0 * g.sh - g.ph + ky < values.window.y0) ++w.y0;
    while (w.y0 < w.y1 && (w.y1 - 1) * g.sh - g.ph + ky >= values.window.y1) --w.y1;
    while (w.x0 < w.x1 && w.x0 * g.sw - g.pw + kx < values.window.x0) ++w.x0;
    while (w.x0 < w.x1 && (w.x1 - 1) * g.sw - g.pw + kx >= values.window.x1) --w.x1;
    return w;
  }

  template <bool FULL>
  __attribute__((noinline)) void block(int o, int64_t t, int64_t taps, T* to) const {
    Vec<T> acc[OUTER_BLOCK] = {};
    const int k0 = int(t / g.cin), c0 = int(t % g.cin);
    const bool second = t + 1 < taps;
    const int k1 = second ? int((t + 1) / g.cin) : k0, c1 = second ? int((t + 1) % g.cin) : c0;
    const Window w0 = reached(k0 / g.kw, k0 % g.kw);
    if (k0 == k1) {
      over<FULL, 2>(o, w0, k0, c0, k1, c1, acc);
    } else {
      const Window w1 = reached(k1 / g.kw, k1 % g.kw);
      over<FULL, 1>(o, w0, k0, c0, k0, c0, acc);
      over<FULL, 1>(o, w1, k1, c1, k1, c1, acc + N);
    }
    for (int i = 0; i < OUTER_BLOCK; i += L) store<T>(to + i, load<T>(to + i) + sums_of_lanes<T>(acc + i));
  }

  // Sums over the outputs in w of one tap, or of two channels of it.
  template <bool FULL, int TAPS>
  GLSK_INLINE void over(int o, Window w, int k0, int c0, int, int c1, Vec<T>* sums) const {
    Vec<T> acc[TAPS * N];
#pragma GCC unroll 16
    for (int i = 0; i < TAPS * N; ++i) acc[i] = sums[i];
    const int ky = k0 / g.kw, kx = k0 % g.kw;
    const int64_t next = int64_t(c1 - c0) * values.channel * L;
    for (int oy = w.y0; oy < w.y1; ++oy) {
      const int64_t out = int64_t(oy - coef.window.y0) * coef.window.width() + w.x0 - coef.window.x0;
      const int64_t in = int64_t(oy * g.sh - g.ph + ky - values.window.y0) * values.window.width() +
                         w.x0 * g.sw - g.pw + kx - values.window.x0;
      const T* a = coef.at + (out * coef.pixel + o * coef.channel) * L;
      const T* z = values.at + (in * values.pixel + c0 * values.channel) * L;
      for (int ox = w.x0; ox < w.x1; ++ox, a += coef.pixel * L, z += g.sw * values.pixel * L)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
          Vec<T> value[TAPS];
          value[0] = load<T>(z + v * L);
          if constexpr (TAPS == 2) value[1] = load<T>(z + next + v * L);
#pragma GCC unroll 8
          for (int i = 0; i < N; ++i) {
            // Channels past the last repeat it; nobody reads those sums.
            const int64_t channel = FULL || o + i < g.cout ? i : g.cout - 1 - o;
            const Vec<T> coefficient = load<T>(a + (channel * (PACKED ? V : coef.channel) + v) * L);
#pragma GCC unroll 2
            for (int n = 0; n < TAPS; ++n) acc[n * N + i] += coefficient * value[n];
          }
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < TAPS * N; ++i) sums[i] = acc[i];
  }
};

// Adds n vectors per V, [n][V][lanes], to rows of a matrix that each lane chooses: row key[v][lane] + at. Lanes that
// share a key one after the other are summed first.
template <class T, int V>
GLSK_INLINE void add_by_key(const T* values, int64_t n, const Mask<T> (&key)[V], const Mask<T> (&flip)[V], T* to,
                            int64_t pitch) {
  constexpr int L = LANES<T>;
  for (int64_t i0 = 0; i0 < n; i0 += L) {
    const int width = n - i0 < L ? int(n - i0) : L;
    for (int v = 0; v < V; ++v) {
      Vec<T> m[L];
#pragma GCC unroll 16
      for (int i = 0; i < L; ++i)
        m[i] = i < width ? (Vec<T>)((Mask<T>)load<T>(values + ((i0 + i) * V + v) * L) ^ flip[v]) : Vec<T>{};
      transpose<T>(m);
      Vec<T> sum = m[0];
      for (int lane = 0; lane < L; ++lane) {
        if (lane + 1 < L && key[v][lane + 1] == key[v][lane]) {
          sum += m[lane + 1];
          continue;
        }
        T* at = to + int64_t(key[v][lane]) * pitch + i0;
        if (width == L) {
          store<T>(at, load<T>(at) + sum);
        } else {
          for (int i = 0; i < width; ++i) at[i] += sum[i];
        }
        if (lane + 1 < L) sum = m[lane + 1];
      }
    }
  }
}

}  // namespace GLSK_ISA
}  // namespace glsk
