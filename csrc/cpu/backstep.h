// What the two kernels of a back-substitution step share. A step turns coefficients on the outputs of a layer into
// coefficients on its inputs.
//
// A vector's lanes are rows (linear functions being bounded from below; an upper bound is the lower bound of the negated
// row). All rows of a block share a window of the layer's outputs, the union of what they depend on. Weights and slopes
// are broadcast, so a unit that every row ignores (an inactive ReLU) is skipped exactly, whatever the other samples do.
//
// Coefficients are stored [pixel of the window][channel][V vectors].
#pragma once

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

// The inputs that the outputs in `out` read.
inline Window inputs_of(const Geometry& g, Window out) {
  const int y0 = out.y0 * g.sh - g.ph, y1 = (out.y1 - 1) * g.sh - g.ph + g.kh;
  const int x0 = out.x0 * g.sw - g.pw, x1 = (out.x1 - 1) * g.sw - g.pw + g.kw;
  const auto within = [](int value, int size) { return value < 0 ? 0 : value < size ? value : size; };
  return {within(y0, g.h), within(y1, g.h), within(x0, g.w), within(x1, g.w)};  // empty where all of it is padding
}

// How a unit's activation turns a coefficient a of its output into one of its input (paper, §2.2, Fig. 3): slope and
// constant per unit of a, for a >= 0 and for a < 0. The layer's bias is in the constants.
// Units stand in channel, row, column order, as their bounds do.
template <class T>
struct Unit {
  T slope_pos, slope_neg, const_pos, const_neg;
};

// The units of a vector of bounds.
template <class T>
struct Lines {
  Vec<T> slope_pos, slope_neg, const_pos, const_neg;
};

// The two lines around a ReLU; for an HBox pass, only what stays an exact function of the input. NaN bounds make a unit
// unstable, and stay NaN. A row can depend on a unit whose slope_neg is not 0.
template <class T>
GLSK_INLINE Lines<T> relax(Vec<T> l, Vec<T> u, T shift, bool hbox) {
  const Vec<T> zero = {}, one = broadcast<T>(1);
  Vec<T> neg = zero, pos = zero, constant = zero;  // of an unstable unit
  if (!hbox) {
    neg = u / (u - l);
    pos = u <= -l ? zero : one;
    constant = neg * (shift - l);
  }
  neg = u <= 0 ? zero : neg;
  pos = u <= 0 ? zero : pos;
  constant = u <= 0 ? zero : constant;
  neg = l >= 0 ? one : neg;
  pos = l >= 0 ? one : pos;
  constant = l >= 0 ? broadcast<T>(shift) : constant;
  return {pos, neg, pos * shift, constant};
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

// How the lanes of a block of V vectors relate to samples.
//   1      all lanes are rows of one sample
//   2      the same rows of two samples, a vector each (V = 2): they share the weights
//   TILE   a lane a sample, a vector a row
//   MIXED  a lane any pair of a row and one of the tile's samples
constexpr int TILE = 3, MIXED = 4;

// Everything one step reads, for any block of rows.
template <class T>
struct Step {
  Geometry g;
  const Reach *rows, *cols;  // [h], [w]: divisions that no step should repeat
  const T* weight;         // packed as the step's kernel wants it
  bool dense;              // so many output units count that skipping the others costs more than it saves
  int words;               // 64-bit words of one pixel's alive bits
  const uint64_t* alive;   // [oh * ow][words] which output units some row can depend on
  const Unit<T>* before[2];  // a sample: [cin * h * w] activation of the inputs; null for the first layer
  const uint64_t* before_alive;
  int before_words;
  const T* box[2];         // a sample: [cin * h * w][2] lower and upper end of the inputs, for the first layer
  // TILE and MIXED have instead of `before` and `box`, with a lane a sample of the tile:
  const T* lines;          // [h * w][cin][4][lanes] slope_pos, slope_neg, const_pos, const_neg
  const T* ends;           // [cin * h * w][2][lanes] lower and upper end
  const Mask<T>* sample;   // MIXED: [V] which sample of the tile each lane bounds a row of
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

// What becomes of finished coefficients: they pass the activation of the layer before (those of the unit in
// `channel`, of `channels`, at `pixel`, of `pixels`) ...
template <class T, int V, int S>
GLSK_INLINE void pass_activation(const Step<T>& s, int channel, int channels, int64_t pixel, int64_t pixels,
                                 const Vec<T> (&a)[V], Vec<T> (&sum)[V], T* out) {
  constexpr int L = LANES<T>;
  const int64_t unit = S >= TILE ? pixel * channels + channel : channel * pixels + pixel;
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) {
    Vec<T> slope, constant;
    if constexpr (S == TILE) {
      const T* lines = s.lines + 4 * L * unit;
      slope = of_sign<T>(a[v], lines);
      constant = of_sign<T>(a[v], lines + 2 * L);
    } else if constexpr (S == MIXED) {
      const T* lines = s.lines + 4 * L * unit;
      const Mask<T> place = place_of<T>(a[v], s.sample[v]);
      slope = __builtin_shuffle(load<T>(lines), load<T>(lines + L), place);
      constant = __builtin_shuffle(load<T>(lines + 2 * L), load<T>(lines + 3 * L), place);
    } else {
      const Unit<T>& u = s.before[S == 1 ? 0 : v][unit];
      slope = by_sign<T>(a[v], u.slope_neg, u.slope_pos);
      constant = by_sign<T>(a[v], u.const_neg, u.const_pos);
    }
    sum[v] += a[v] * constant;
    store<T>(out + v * L, a[v] * slope);
  }
}

// ... or meet the box.
template <class T, int V, int S>
GLSK_INLINE void meet_box(const Step<T>& s, int64_t input, const Vec<T> (&a)[V], Vec<T> (&sum)[V]) {
  constexpr int L = LANES<T>;
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) {
    if constexpr (S == TILE) {
      sum[v] += a[v] * of_sign<T>(a[v], s.ends + 2 * L * input);
    } else if constexpr (S == MIXED) {
      const T* ends = s.ends + 2 * L * input;
      sum[v] += a[v] * __builtin_shuffle(load<T>(ends), load<T>(ends + L), place_of<T>(a[v], s.sample[v]));
    } else {
      const T* ends = s.box[S == 1 ? 0 : v] + 2 * input;
      sum[v] += a[v] * by_sign<T>(a[v], ends[1], ends[0]);
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

  static int64_t capacity(const Geometry& g) { return int64_t(g.kh) * g.kw * g.cout + 8; }
};

}  // namespace GLSK_ISA
}  // namespace glsk
