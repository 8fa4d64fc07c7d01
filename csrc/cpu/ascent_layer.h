// One layer of a network for a tile of points, a vector's lanes: its outputs, and gradients taken back to its inputs.
//
// A convolution reads its inputs with their zero padding written out, and the gradients by its outputs with as many zeros
// around them as its kernel reaches, so that no loop meets a border. A layer whose only outputs see everything is a
// matrix over its inputs as they lie.
#pragma once

#include "cpu/gather.h"
#include "cpu/packed.h"

namespace glsk {
namespace GLSK_ISA {

// Accumulators of the inner loops: N channels at once and as many pixels side by side as fill half the registers.
constexpr int ASCENT_SUMS = GLSK_VECTOR_REGISTERS / 2;

// An image of lanes within a margin of zeros.
struct Image {
  int channels, height, width, top, left;  // height and width: with the margin

  int64_t plane() const { return int64_t(height) * width; }
  int64_t size() const { return channels * plane(); }
  int64_t at(int c, int y, int x) const { return c * plane() + int64_t(y + top) * width + x + left; }
};

template <class T>
struct AscentLayer {
  Layer<T> layer;  // of the present member
  bool matrix;
  Image in, out;    // of the inputs, and of the gradients by the outputs
  const T* packed;  // weights by input, of a convolution

  explicit AscentLayer(const Layer<T>& l) : layer(l), packed(nullptr) {
    const Geometry& g = l.g;
    matrix = g.oh * g.ow == 1 && g.kh == g.h && g.kw == g.w && !g.ph && !g.pw;
    if (matrix) {
      in = {g.cin, g.h, g.w, 0, 0};
      out = {g.cout, 1, 1, 0, 0};
      return;
    }
    const int rows = (g.oh - 1) * g.sh + g.kh, cols = (g.ow - 1) * g.sw + g.kw;  // that the kernel reads
    const int below = g.h + g.ph > rows ? g.h + g.ph : rows, right = g.w + g.pw > cols ? g.w + g.pw : cols;
    in = {g.cin, below, right, g.ph, g.pw};
    const int mh = (g.kh + g.sh - 1) / g.sh, mw = (g.kw + g.sw - 1) / g.sw;
    out = {g.cout, g.oh + 2 * (mh - 1), g.ow + 2 * (mw - 1), mh - 1, mw - 1};
  }

  int64_t packed_size() const {
    return matrix ? 0 : int64_t(layer.g.kh) * layer.g.kw * layer.g.cout * gather_pitch(layer.g);
  }

  // ---- forward: emit(channel, y, x, value) for every output ----

  template <class Emit>
  void forward(const T* from, const Emit& emit) const {
    const int cout = layer.g.cout;
    int o = 0;
    if (GLSK_VECTOR_REGISTERS == 32)
      for (; o + 8 <= cout; o += 8) rows<8>(o, from, emit);
    for (; o + 4 <= cout; o += 4) rows<4>(o, from, emit);
    for (; o + 2 <= cout; o += 2) rows<2>(o, from, emit);
    for (; o < cout; ++o) rows<1>(o, from, emit);
  }

  // ---- backward: emit(channel, y, x, gradient) for every input ----

  template <class Emit>
  void backward(const T* by_out, const Emit& emit) const {
    matrix ? matrix_backward(by_out, emit) : gathered(by_out, emit);
  }

 private:
  static constexpr int L = LANES<T>;

  template <int N, class Emit>
  void rows(int o, const T* from, const Emit& emit) const {
    const Geometry& g = layer.g;
    constexpr int X = ASCENT_SUMS / N < 8 ? ASCENT_SUMS / N : 8;
    for (int y = 0; y < g.oh; ++y) {
      int x = 0;
      for (; x + X <= g.ow; x += X) pixels<N, X>(o, y, x, from, emit);
      for (; x < g.ow; ++x) pixels<N, 1>(o, y, x, from, emit);
    }
  }

  template <int N, int X, class Emit>
  GLSK_INLINE void pixels(int o, int y, int x, const T* from, const Emit& emit) const {
    const Geometry& g = layer.g;
    const int64_t taps = g.taps();
    Vec<T> sum[N][X];
#pragma GCC unroll 16
    for (int i = 0; i < N; ++i)
#pragma GCC unroll 16
      for (int j = 0; j < X; ++j) sum[i][j] = broadcast<T>(layer.bias ? layer.bias[o + i] : T(0));
    const T* w = layer.weight + o * taps;
    for (int c = 0; c < g.cin; ++c)
      for (int ky = 0; ky < g.kh; ++ky, w += g.kw) {
        const T* row = from + (c * in.plane() + int64_t(y * g.sh + ky) * in.width + x * g.sw) * L;
        for (int kx = 0; kx < g.kw; ++kx) {
          Vec<T> v[X];
#pragma GCC unroll 16
          for (int j = 0; j < X; ++j) v[j] = load<T>(row + (j * g.sw + kx) * L);
#pragma GCC unroll 16
          for (int i = 0; i < N; ++i)
#pragma GCC unroll 16
            for (int j = 0; j < X; ++j) sum[i][j] += w[i * taps + kx] * v[j];
        }
      }
#pragma GCC unroll 16
    for (int i = 0; i < N; ++i)
#pragma GCC unroll 16
      for (int j = 0; j < X; ++j) emit(o + i, y, x + j, sum[i][j]);
  }

  template <class Emit>
  void matrix_backward(const T* by_out, const Emit& emit) const {
    constexpr int X = 8;
    const Geometry& g = layer.g;
    const int n = g.inputs();
    const auto one = [&](int i, Vec<T> sum) GLSK_LAMBDA_INLINE { emit(i / (g.h * g.w), i / g.w % g.h, i % g.w, sum); };
    int i = 0;
    for (; i + X <= n; i += X) {
      Vec<T> sum[X] = {};
      for (int o = 0; o < g.cout; ++o) {
        const Vec<T> d = load<T>(by_out + int64_t(o) * L);
        const T* w = layer.weight + int64_t(o) * n + i;
#pragma GCC unroll 8
        for (int j = 0; j < X; ++j) sum[j] += w[j] * d;
      }
      for (int j = 0; j < X; ++j) one(i + j, sum[j]);
    }
    for (; i < n; ++i) {
      Vec<T> sum = {};
      for (int o = 0; o < g.cout; ++o) sum += layer.weight[int64_t(o) * n + i] * load<T>(by_out + int64_t(o) * L);
      one(i, sum);
    }
  }

  // Input pixels a stride apart are read by the same taps: those of a row are taken side by side.
  template <class Emit>
  void gathered(const T* by_out, const Emit& emit) const {
    const Geometry& g = layer.g;
    const int block = gather_block(g);
    for (int c = 0; c < g.cin; c += block)
      for (int y = 0; y < g.h; ++y) switch (block) {
          case 1: gathered_row<1>(c, y, by_out, emit); break;
          case 4: gathered_row<4>(c, y, by_out, emit); break;
          default: gathered_row<LARGEST_BLOCK>(c, y, by_out, emit);
        }
  }

  template <int N, class Emit>
  void gathered_row(int c, int y, const T* by_out, const Emit& emit) const {
    const Geometry& g = layer.g;
    constexpr int X = ASCENT_SUMS / N < 8 ? (ASCENT_SUMS / N > 0 ? ASCENT_SUMS / N : 1) : 8;
    for (int first = 0; first < g.sw && first < g.w; ++first) {
      int x = first;
      for (; x + (X - 1) * g.sw < g.w && read(y, x + (X - 1) * g.sw); x += X * g.sw)
        gathered_pixels<N, X>(c, y, x, by_out, emit);
      for (; x < g.w; x += g.sw) gathered_pixels<N, 1>(c, y, x, by_out, emit);
    }
  }

  // Whether an output can depend on an input pixel: beyond, gradients have no place in `out`.
  bool read(int y, int x) const {
    const Geometry& g = layer.g;
    return (y + g.ph) / g.sh < g.oh + out.top && (x + g.pw) / g.sw < g.ow + out.left;
  }

  template <int N, int X, class Emit>
  GLSK_INLINE void gathered_pixels(int c, int y, int x, const T* by_out, const Emit& emit) const {
    const Geometry& g = layer.g;
    Vec<T> sum[N][X] = {};
    if (read(y, x)) {
      const int pitch = gather_pitch(g), qx = (x + g.pw) / g.sw;
      for (int ky = (y + g.ph) % g.sh, oy = (y + g.ph) / g.sh; ky < g.kh; ky += g.sh, --oy)
        for (int kx = (x + g.pw) % g.sw, ox = qx; kx < g.kw; kx += g.sw, --ox) {
          const T* w = packed + (int64_t(ky) * g.kw + kx) * g.cout * pitch + c;
          const T* from = by_out + out.at(0, oy, ox) * L;
          for (int o = 0; o < g.cout; ++o, w += pitch, from += out.plane() * L) {
            Vec<T> v[X];
#pragma GCC unroll 16
            for (int j = 0; j < X; ++j) v[j] = load<T>(from + j * L);
#pragma GCC unroll 16
            for (int i = 0; i < N; ++i)
#pragma GCC unroll 16
              for (int j = 0; j < X; ++j) sum[i][j] += w[i] * v[j];
          }
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < N; ++i)
      if (c + i < g.cin)
#pragma GCC unroll 16
        for (int j = 0; j < X; ++j) emit(c + i, y, x + j * g.sw, sum[i][j]);
  }
};

}  // namespace GLSK_ISA
}  // namespace glsk
