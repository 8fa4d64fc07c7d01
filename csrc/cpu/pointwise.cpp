#include "cpu/pointwise.h"

#include <cmath>

namespace glsk {

template <class T>
void relu_relaxation(const T* lower, const T* upper, int64_t n, T* lower_slope, T* upper_slope, T* intercept,
                     int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t i = 0; i < n; ++i) {
    const T l = lower[i], u = upper[i];
    const bool active = l >= 0, inactive = !active && u <= 0;
    const T slope = active ? T(1) : inactive ? T(0) : u / (u - l);
    upper_slope[i] = slope;
    lower_slope[i] = active || (!inactive && u > -l) ? T(1) : T(0);
    intercept[i] = active || inactive ? T(0) : -slope * l;
  }
}

template <class T>
void hbox_relu(const T* box_lower, const T* box_upper, const T* lower, const T* upper, int64_t n, T* out_lower,
               T* out_upper, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t i = 0; i < n; ++i) {
    const bool active = lower[i] >= 0;
    out_lower[i] = active ? box_lower[i] : T(0);
    out_upper[i] = active ? box_upper[i] : (upper[i] < 0 ? T(0) : upper[i]);
  }
}

template <class T>
void robust_cross_entropy(const T* margins, int64_t members, int64_t samples, int64_t rows, T* loss, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t p = 0; p < members; ++p) {
    double total = 0;
    for (int64_t b = 0; b < samples; ++b) {
      const T* m = margins + (p * samples + b) * rows;
      double top = 0;  // the term of y itself, exp(0)
      for (int64_t j = 0; j < rows; ++j) top = -m[j] > top || std::isnan(m[j]) ? -double(m[j]) : top;
      if (std::isinf(top) || std::isnan(top)) {
        total += top;
        continue;
      }
      double sum = std::exp(-top);
      for (int64_t j = 0; j < rows; ++j) sum += std::exp(-double(m[j]) - top);
      total += top + std::log(sum);
    }
    loss[p] = T(total / double(samples));
  }
}

#define GLSK_INSTANTIATE(T)                                                                                          \
  template void relu_relaxation<T>(const T*, const T*, int64_t, T*, T*, T*, int);                                    \
  template void hbox_relu<T>(const T*, const T*, const T*, const T*, int64_t, T*, T*, int);                          \
  template void robust_cross_entropy<T>(const T*, int64_t, int64_t, int64_t, T*, int);
GLSK_INSTANTIATE(float)
GLSK_INSTANTIATE(double)

}  // namespace glsk
