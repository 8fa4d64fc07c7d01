// What the two kernels of a back-substitution step share. A step turns coefficients on the outputs of a layer into
// coefficients on its inputs.
//
// A vector's lanes are rows (linear functions being bounded from below; an upper bound is the lower bound of the negated
// row). All rows of a block share a window of the layer's outputs, the union of what they depend on. Weights are
// broadcast, so a unit that every row ignores (an inactive ReLU) is skipped exactly.
//
// Coefficients are stored [pixel of the window][channel][V vectors].
#pragma once

#include "cpu/lines.h"
#include "cpu/simd.h"
#include "cpu/types.h"

namespace glsk {
namespace GLSK_ISA {

// Pixels [y0, y1) x [x0, x1) of a layer's outputs or inputs.
struct Window {
  int y0, y1, x0, x1;
  int width() const { return x1 - x0; }
  int pixels() const { return (y1 - y0) * (x1 - x0); }
};

// The inputs that the outputs in `out` read: none where there are no outputs, or padding is all they read.
inline Window inputs_of(const Geometry& g, Window out) {
  const auto within = [](int value, int size) { return value < 0 ? 0 : value < size ? value : size; };
  const auto read = [&](int first, int end, int stride, int pad, int kernel, int size, int& from, int& to) {
    from = within(first * stride - pad, size);
    to = within((end - 1) * stride - pad + kernel, size);
    if (end <= first || to < from) to = from;
  };
  Window in;
  read(out.y0, out.y1, g.sh, g.ph, g.kh, g.h, in.y0, in.y1);
  read(out.x0, out.x1, g.sw, g.pw, g.kw, g.w, in.x0, in.x1);
  return in;
}

// The constants are kept in four partial sums, so that additions need not wait for each other.
constexpr int SUMS = 4;

template <class T, int V>
struct Constants {
  Vec<T> sum[SUMS][V];
};

// The outputs that read one row (or column) of inputs: at kernel index k output o, at k + stride output o - 1, and so on.
struct Reach {
  int k, o;
};

// How the lanes of a block of V vectors relate to the tile of samples, and whether what a gradient needs is kept.
//   TILE   a lane a sample, a vector a row
//   MIXED  a lane any pair of a row and one of the tile's samples
//   KEPT   with either: coefficients before every activation, and the corner of the box that each row picks, are stored
//   OWN    the lanes of each vector are subproblems of their own: the box has V vectors a unit; the corner is stored, and
//          met
constexpr int TILE = 0, MIXED = 1, KEPT = 2, OWN = 4;

// Everything one step reads, for any block of rows.
template <class T>
struct Step {
  Geometry g;
  const Reach *rows, *cols;      // [h], [w]: divisions that no step should repeat
  const T* weight;               // packed as the step's kernel wants it
  bool dense;                    // so many output units count that skipping the others costs more than it saves
  int words;                     // 64-bit words of one pixel's alive bits
  const uint64_t* alive;         // [oh * ow][words] which output units some row can depend on
  const uint64_t* before_alive;  // the same of the inputs; null for the first layer
  int before_words;
  const T* lines;         // of the inputs: [h * w][cin][4][lanes] slope_pos, slope_neg, const_pos, const_neg
  const T* ends;          // first layer: [cin * h * w][2][lanes] lower and upper end
  const T* beside;        // OWN: [cin * h * w][V][lanes] coefficients that the box's inputs have already, or null
  const Mask<T>* sample;  // MIXED: [V] which sample of the tile each lane bounds a row of
  // KEPT:
  int64_t raw;          // how far from where a coefficient goes it also goes before its activation
  T* corner;            // first layer: [cin * h * w][V][lanes] the end that each row picks, times its scale
  T* first;             // the same: the coefficients themselves, or null
  const Vec<T>* scale;  // [V]
};

// One of two vectors a lane, by the sign of a: pair[0, L) where a >= 0, pair[L, 2L) where a < 0.
template <class T>
GLSK_INLINE Vec<T> of_sign(Vec<T> a, const T* pair) {
  return a < 0 ? load<T>(pair + LANES<T>) : load<T>(pair);
}

// Where lanes of samples `sample` and the sign of a stand in two vectors that hold a lane a sample.
template <class T>
GLSK_INLINE Mask<T> place_of(Vec<T> a, Mask<T> sample) {
  return sample | (((Mask<T>)a >> int(8 * sizeof(T) - 1)) & LANES<T>);
}

// By the sign of a: one of the two vectors at `pair`, in the lanes of the block's samples.
template <class T, int S>
GLSK_INLINE Vec<T> pick(Vec<T> a, const T* pair, const Mask<T>* sample, int v) {
  if constexpr (S & MIXED)
    return __builtin_shuffle(load<T>(pair), load<T>(pair + LANES<T>), place_of<T>(a, sample[v]));
  else
    return of_sign<T>(a, pair);
}

// What becomes of finished coefficients: they pass the activation of the layer before (those of the unit in
// `channel`, of `channels`, at `pixel`) ...
template <class T, int V, int S>
GLSK_INLINE void pass_activation(const Step<T>& s, int channel, int channels, int64_t pixel, const Vec<T> (&a)[V],
                                 Vec<T> (&sum)[V], T* out) {
  constexpr int L = LANES<T>;
  const T* lines = s.lines + 4 * L * (pixel * channels + channel);
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) {
    if constexpr ((S & (MIXED | KEPT)) == MIXED) {
      const Mask<T> place = place_of<T>(a[v], s.sample[v]);
      sum[v] += a[v] * __builtin_shuffle(load<T>(lines + 2 * L), load<T>(lines + 3 * L), place);
      store<T>(out + v * L, a[v] * __builtin_shuffle(load<T>(lines), load<T>(lines + L), place));
    } else {
      if constexpr (S & KEPT)
        store<T>(out + s.raw + v * L, a[v]);
      else
        sum[v] += a[v] * pick<T, S>(a[v], lines + 2 * L, s.sample, v);
      store<T>(out + v * L, a[v] * pick<T, S>(a[v], lines, s.sample, v));
    }
  }
}

// ... or meet the box.
template <class T, int V, int S>
GLSK_INLINE void meet_box(const Step<T>& s, int64_t input, const Vec<T> (&a)[V], Vec<T> (&sum)[V]) {
  constexpr int L = LANES<T>;
  const T* ends = s.ends + (S & OWN ? V : 1) * 2 * L * input;
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) {
    if constexpr (S & OWN) {
      const Vec<T> all = s.beside ? a[v] + load<T>(s.beside + (input * V + v) * L) : a[v];
      const Vec<T> end = of_sign<T>(all, ends + 2 * L * v);
      store<T>(s.corner + (input * V + v) * L, end);
      sum[v] += all * end;
      continue;
    }
    const Vec<T> end = pick<T, S>(a[v], ends, s.sample, v);
    if constexpr (S & KEPT) {
      store<T>(s.corner + (input * V + v) * L, end * s.scale[v]);
      if (s.first) store<T>(s.first + (input * V + v) * L, a[v]);
    } else {
      sum[v] += a[v] * end;
    }
  }
}

// The positions of the set bits of every byte, in order.
struct SetBits {
  uint8_t of[256][8];
  constexpr SetBits() : of() {
    for (int byte = 0; byte < 256; ++byte) {
      int n = 0;
      for (int bit = 0; bit < 8; ++bit)
        if (byte >> bit & 1) of[byte][n++] = uint8_t(bit);
    }
  }
};
static constexpr SetBits SET_BITS;

// The output units that a step reads for some inputs, without those that no row can depend on: where their coefficients
// stand, and their weights. Built without branches, so that the loop over it has one trip count to guess, not one a
// pixel. In a dense step an entry is a pixel, and stands for all its channels.
struct AliveList {
  int* coef;
  int* weight;
  int count;

  // Channels of one pixel: 64 bits a word; offsets of channel 0 and from one channel to the next.
  GLSK_INLINE void add(const uint64_t* words, int channels, int coef0, int coef_pitch, int weight0, int weight_pitch) {
    typedef int Eight __attribute__((vector_size(32)));
    typedef uint8_t Bytes __attribute__((vector_size(8)));
    for (int c0 = 0; c0 < channels; c0 += 8) {
      const unsigned byte = words[c0 / 64] >> (c0 % 64) & 255;
      Bytes set;
      memcpy(&set, SET_BITS.of[byte], 8);
      const Eight channel = __builtin_convertvector(set, Eight) + c0;
      const Eight from = coef0 + channel * coef_pitch, by = weight0 + channel * weight_pitch;
      memcpy(coef + count, &from, sizeof from);  // writes 8, keeps the set ones
      memcpy(weight + count, &by, sizeof by);
      count += __builtin_popcount(byte);
    }
  }

  GLSK_INLINE void add_pixel(int coef0, int weight0) {
    coef[count] = coef0;
    weight[count++] = weight0;
  }

  static int64_t capacity(const Geometry& g) { return int64_t(g.kh) * g.kw * (g.cout > g.cin ? g.cout : g.cin) + 8; }
};

}  // namespace GLSK_ISA
}  // namespace glsk
