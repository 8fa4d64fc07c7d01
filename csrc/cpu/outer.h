// Sums of outer products, which weights' gradients are made of: over pixels, vectors and lanes, of coefficients on a
// layer's outputs and the values on its inputs. Lanes are summed in registers; only sums go to memory.
#pragma once

#include "cpu/backstep.h"

namespace glsk {
namespace GLSK_ISA {

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
  const T* at;    // of the window's first pixel
  Window window;  // what is there; nothing outside of it is read
  int64_t pixel, channel;
};

// A block of sums is of so many output channels and of 3, 4 or 5 taps of one row of the kernel, in the order of input
// channel and column: neighbouring columns read the same values, and all taps the same coefficients.
constexpr int OUTER_CHANNELS = GLSK_VECTOR_REGISTERS == 32 ? 4 : 2;

inline int outer_taps(const Geometry& g) {
  const int row = g.kw * g.cin;
  const auto idle = [&](int taps) { return (taps - row % taps) % taps; };
  int best = 4;
  if (idle(5) < idle(best)) best = 5;
  if (idle(3) < idle(best)) best = 3;
  return best;
}

// A layer's gradient in such blocks: [blocks of output channels][ky][blocks of a row's taps][tap][channel].
inline int64_t outer_row(const Geometry& g) {
  const int taps = outer_taps(g);
  return (int64_t(g.kw) * g.cin + taps - 1) / taps * taps * OUTER_CHANNELS;
}
inline int64_t outer_size(const Geometry& g) {
  return (g.cout + OUTER_CHANNELS - 1) / OUTER_CHANNELS * g.kh * outer_row(g);
}

// Adds the blocks of output channels o0..o1 (whole blocks), times the sign of the weight where weights are given, to
// [cout][cin][kh][kw].
template <class T>
void add_outer(const Geometry& g, const T* blocks, const T* signs, int o0, int o1, T* to) {
  const int64_t taps = g.taps(), row = outer_row(g);
  for (int64_t o = o0; o < o1; ++o)
    for (int64_t c = 0; c < g.cin; ++c)
      for (int64_t ky = 0; ky < g.kh; ++ky) {
        const T* from =
            blocks + (o / OUTER_CHANNELS * g.kh + ky) * row + c * g.kw * OUTER_CHANNELS + o % OUTER_CHANNELS;
        const int64_t at = o * taps + (c * g.kh + ky) * g.kw;
        for (int64_t kx = 0; kx < g.kw; ++kx) {
          const T value = from[kx * OUTER_CHANNELS];
          to[at + kx] += !signs ? value : signs[at + kx] > 0 ? value : signs[at + kx] < 0 ? -value : T(0);
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
    switch (outer_taps(g)) {
      case 3: return all<3>(blocks);
      case 4: return all<4>(blocks);
      default: return all<5>(blocks);
    }
  }

 private:
  static constexpr int L = LANES<T>, N = OUTER_CHANNELS;
  const Geometry& g;
  const Image<T> coef, values;

  // [first, last) of the outputs.
  struct Span {
    int first, last;
  };

  // The taps of a block: where their values stand from those of column 0 and channel 0, and which outputs they reach.
  template <int TAPS>
  struct Group {
    Span rows, columns[TAPS], some, every;
    int64_t at[TAPS];
    int ky;
  };

  // Of the outputs in `of`, those for which kernel index k lies on values that are there, [in0, in1).
  static Span reached(Span of, int stride, int pad, int k, int in0, int in1) {
    while (of.first < of.last && of.first * stride - pad + k < in0) ++of.first;
    while (of.first < of.last && (of.last - 1) * stride - pad + k >= in1) --of.last;
    return of;
  }

  // Taps t, t + 1, ... of kernel row ky.
  template <int TAPS>
  Group<TAPS> group(int ky, int t) const {
    const Window &out = coef.window, &in = values.window;
    const Span all = {out.x0, out.x1}, none = {out.x1, out.x0};
    Group<TAPS> found = {reached({out.y0, out.y1}, g.sh, g.ph, ky, in.y0, in.y1), {}, none, all, {}, ky};
    for (int n = 0; n < TAPS; ++n) {
      const int tap =
          t + n < g.kw * g.cin ? t + n : g.kw * g.cin - 1;  // past the last it is repeated; nobody reads that
      const int c = tap / g.kw, kx = tap % g.kw;
      found.at[n] = (kx * values.pixel + c * values.channel) * L;
      Span &span = found.columns[n] = reached(all, g.sw, g.pw, kx, in.x0, in.x1), &some = found.some,
           &every = found.every;
      if (span.first == span.last) span = none;
      some = {span.first < some.first ? span.first : some.first, span.last > some.last ? span.last : some.last};
      every = {span.first > every.first ? span.first : every.first, span.last < every.last ? span.last : every.last};
    }
    if (found.every.first >= found.every.last) found.every = {found.some.first, found.some.first};
    return found;
  }

  template <int TAPS>
  void all(T* blocks) const {
    const int row = g.kw * g.cin, groups = (row + TAPS - 1) / TAPS;
    const bool one = coef.window.pixels() == 1;  // then finding a group takes longer than its block
    for (int o0 = 0; o0 < (one ? N : g.cout); o0 += N)
      for (int ky = 0; ky < g.kh; ++ky)
        for (int n = 0; n < groups; ++n) {
          const Group<TAPS> taps = group<TAPS>(ky, n * TAPS);
          for (int o = o0; o < (one ? g.cout : o0 + N); o += N) {
            T* to = blocks + ((int64_t(o / N) * g.kh + ky) * groups + n) * TAPS * N;
            o + N <= g.cout ? block<TAPS, true>(taps, o, to) : block<TAPS, false>(taps, o, to);
          }
        }
  }

  template <int TAPS, bool FULL>
  __attribute__((noinline)) void block(const Group<TAPS>& taps, int o, T* to) const {
    const Window &out = coef.window, &in = values.window;
    const Span rows = taps.rows, some = taps.some, every = taps.every;
    const int ky = taps.ky;
    Vec<T> acc[TAPS * N] = {};
    for (int oy = rows.first; oy < rows.last; ++oy) {
      const int64_t row = int64_t(oy * g.sh - g.ph + ky - in.y0) * in.width() - g.pw - in.x0;
      const T* a = coef.at + ((int64_t(oy - out.y0) * out.width() - out.x0) * coef.pixel + o * coef.channel) * L;
      const auto one = [&](int ox, auto edge) GLSK_LAMBDA_INLINE {
        const T* from = a + ox * coef.pixel * L;
        const int64_t z = (row + ox * g.sw) * values.pixel * L;
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
          Vec<T> coefficient[N];
#pragma GCC unroll 4
          for (int i = 0; i < N; ++i) {
            const int64_t channel = FULL || o + i < g.cout ? i : g.cout - 1 - o;
            coefficient[i] = load<T>(from + (channel * (PACKED ? V : coef.channel) + v) * L);
          }
#pragma GCC unroll 5
          for (int n = 0; n < TAPS; ++n) {
            if (decltype(edge)::value && (ox < taps.columns[n].first || ox >= taps.columns[n].last)) continue;
            const Vec<T> value = load<T>(values.at + (z + taps.at[n] + v * L));
#pragma GCC unroll 4
            for (int i = 0; i < N; ++i) acc[n * N + i] += coefficient[i] * value;
          }
        }
      };
      for (int ox = some.first; ox < every.first; ++ox) one(ox, Edge<true>());
      for (int ox = every.first; ox < every.last; ++ox) one(ox, Edge<false>());
      for (int ox = every.last; ox < some.last; ++ox) one(ox, Edge<true>());
    }
    constexpr int COUNT = TAPS * N, WHOLE = (COUNT + L - 1) / L * L;
    Vec<T> padded[WHOLE] = {};
#pragma GCC unroll 32
    for (int i = 0; i < COUNT; ++i) padded[i] = acc[i];
    for (int i = 0; i < WHOLE; i += L) {
      const Vec<T> sum = sums_of_lanes<T>(padded + i);
      if (i + L <= COUNT) {
        store<T>(to + i, load<T>(to + i) + sum);
      } else {
        for (int k = 0; i + k < COUNT; ++k) to[i + k] += sum[k];
      }
    }
  }

  template <bool IS>
  struct Edge {  // std::bool_constant
    static constexpr bool value = IS;
  };
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
