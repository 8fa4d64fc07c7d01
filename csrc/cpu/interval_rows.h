// The gradient of interval bounds of C (W v + b): rows of C are merged with the last, linear, layer, [rows][inputs] that
// differ from sample to sample, before they meet the box of v. A tile of samples, LANES inputs at a time.
#pragma once

#include "cpu/outer.h"
#include "cpu/parallel.h"

namespace glsk {
namespace GLSK_ISA {

template <class T>
struct IntervalRows {
  const Layer<T>& layer;
  int rows;
  const T* C;                     // [rows][outputs][lanes]
  const T *by_lower, *by_upper;   // [rows][lanes]: the gradients by the bounds
  const T *center, *radius;       // [inputs][lanes]: the box
  T *by_center, *by_radius;       // written
  T *by_weight, *by_bias, *by_C;  // [outputs][inputs], [outputs][lanes], as C; added to; null: not wanted
  T* merged;                      // room for `room(rows)`: by the merged rows

  static int64_t room(int rows) { return int64_t(rows) * L * L; }

  void run() const {
    const int inputs = layer.g.inputs(), outputs = layer.g.outputs();
    for (int i = 0; i < inputs; i += L) {
      const int width = inputs - i < L ? inputs - i : L;
      if (width < L) memset(merged, 0, sizeof(T) * room(rows));
      int n = 0;
      for (; n + N <= width; n += N) merge<N>(i, n);
      for (; n < width; ++n) merge<1>(i, n);
      for (int k = 0; by_weight && k < outputs; ++k) add_weights(i, k, width);
      if (by_C) add_C(i, width);
    }
    for (int row = 0; row < rows; ++row)
      for (int k = 0; k < outputs; ++k) {
        const int64_t at = (int64_t(row) * outputs + k) * L;
        const Vec<T> by_middle = load<T>(by_lower + row * L) + load<T>(by_upper + row * L);
        if (by_bias) store<T>(by_bias + k * L, load<T>(by_bias + k * L) + load<T>(C + at) * by_middle);
        if (by_C && layer.bias) store<T>(by_C + at, load<T>(by_C + at) + by_middle * layer.bias[k]);
      }
  }

 private:
  static constexpr int L = LANES<T>, N = GLSK_VECTOR_REGISTERS == 32 ? 8 : 4;

  // Inputs i + n .. i + n + COUNT: the merged coefficients, what follows by the box, and by them.
  template <int COUNT>
  GLSK_INLINE void merge(int i, int n) const {
    const int64_t inputs = layer.g.inputs(), outputs = layer.g.outputs();
    const T* weight = layer.weight + i + n;
    const int64_t at = int64_t(i + n) * L;
    Vec<T> of_center[COUNT] = {}, of_radius[COUNT] = {}, zero = {};
    for (int row = 0; row < rows; ++row) {
      Vec<T> m[COUNT] = {};
      const T *from = C + row * outputs * L, *w = weight;
      for (int k = 0; k < outputs; ++k, from += L, w += inputs) {
        const Vec<T> value = load<T>(from);
#pragma GCC unroll 8
        for (int j = 0; j < COUNT; ++j) m[j] += w[j] * value;
      }
      const Vec<T> low = load<T>(by_lower + row * L), up = load<T>(by_upper + row * L);
      const Vec<T> by_middle = low + up, by_spread = up - low;
#pragma GCC unroll 8
      for (int j = 0; j < COUNT; ++j) {
        const Vec<T> c = load<T>(center + at + j * L), r = load<T>(radius + at + j * L);
        of_center[j] += by_middle * m[j];
        of_radius[j] += by_spread * absolute<T>(m[j]);
        store<T>(merged + (row * L + n + j) * L, by_middle * c + by_spread * (m[j] < 0 ? -r : m[j] > 0 ? r : zero));
      }
    }
#pragma GCC unroll 8
    for (int j = 0; j < COUNT; ++j) {
      store<T>(by_center + at + j * L, of_center[j]);
      store<T>(by_radius + at + j * L, of_radius[j]);
    }
  }

  // Inputs i .. i + width of output k.
  GLSK_INLINE void add_weights(int64_t i, int64_t k, int width) const {
    Vec<T> acc[L] = {};
    for (int row = 0; row < rows; ++row) {
      const Vec<T> value = load<T>(C + (int64_t(row) * layer.g.outputs() + k) * L);
#pragma GCC unroll 16
      for (int n = 0; n < L; ++n) acc[n] += value * load<T>(merged + (row * L + n) * L);
    }
    const Vec<T> sum = sums_of_lanes<T>(acc);
    T* to = by_weight + k * layer.g.inputs() + i;
    if (width == L) {
      store<T>(to, load<T>(to) + sum);
    } else {
      for (int n = 0; n < width; ++n) to[n] += sum[n];
    }
  }

  void add_C(int64_t i, int width) const {
    const int64_t inputs = layer.g.inputs(), outputs = layer.g.outputs();
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t k = 0; k < outputs; ++k) {
        T* to = by_C + (row * outputs + k) * L;
        Vec<T> sum = load<T>(to);
        for (int n = 0; n < width; ++n) sum += layer.weight[k * inputs + i + n] * load<T>(merged + (row * L + n) * L);
        store<T>(to, sum);
      }
  }
};

}  // namespace GLSK_ISA
}  // namespace glsk
