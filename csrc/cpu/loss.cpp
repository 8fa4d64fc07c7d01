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

template void robust_cross_entropy<float>(const float*, int64_t, int64_t, int64_t, float*, int);
template void robust_cross_entropy<double>(const double*, int64_t, int64_t, int64_t, double*, int);

}  // namespace glsk
