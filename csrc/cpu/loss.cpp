#include "cpu/loss.h"

#include <cmath>

namespace glsk {

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

template <class T>
void robust_cross_entropy_backward(const T* margins, const T* d_loss, int64_t members, int64_t samples, int64_t rows,
                                   T* d_margins, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t p = 0; p < members; ++p) {
    const double scale = -double(d_loss[p]) / double(samples);
    for (int64_t b = 0; b < samples; ++b) {
      const int64_t from = (p * samples + b) * rows;
      const T* m = margins + from;
      double top = 0;
      for (int64_t j = 0; j < rows; ++j) top = -m[j] > top || std::isnan(m[j]) ? -double(m[j]) : top;
      double sum = std::exp(-top);
      for (int64_t j = 0; j < rows; ++j) {
        const double share = std::exp(-double(m[j]) - top);
        sum += share;
        d_margins[from + j] = T(share);
      }
      // Where the loss is infinite it has no gradient: the sum is NaN.
      for (int64_t j = 0; j < rows; ++j) d_margins[from + j] = T(scale * double(d_margins[from + j]) / sum);
    }
  }
}

template void robust_cross_entropy<float>(const float*, int64_t, int64_t, int64_t, float*, int);
template void robust_cross_entropy<double>(const double*, int64_t, int64_t, int64_t, double*, int);
template void robust_cross_entropy_backward<float>(const float*, const float*, int64_t, int64_t, int64_t, float*, int);
template void robust_cross_entropy_backward<double>(const double*, const double*, int64_t, int64_t, int64_t, double*,
                                                    int);

}  // namespace glsk
