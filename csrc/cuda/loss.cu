// robust_cross_entropy: mean over the batch of ln(1 + sum_j exp(-margin_j)), one thread block a member.
#include "api.h"
#include "platform.cuh"
#include "relaxation.cuh"

namespace glsk::cuda {
namespace {

constexpr int THREADS = 256;

template <class T>
__global__ void loss_kernel(const View margins, const std::int64_t samples, const std::int64_t rows, T* loss,
                            const std::int64_t first_member) {
    GLSK_SHARED(memory);
    T* sums = reinterpret_cast<T*>(memory);
    const std::int64_t p = first_member + blockIdx.x;
    const int me = threadIdx.x;
    T sum = T(0);
    for (std::int64_t b = me; b < samples; b += THREADS) {
        const T* margin = slice<T>(margins, p, b);
        T top = T(0);  // the exponent of the 1; shifting by the largest one keeps every power below 1
        for (std::int64_t j = 0; j < rows; ++j) top = -margin[j] > top || margin[j] != margin[j] ? -margin[j] : top;
        if (top - top != T(0)) {  // infinity, or NaN
            sum += top;
            continue;
        }
        T powers = exp(-top);
        for (std::int64_t j = 0; j < rows; ++j) powers += exp(-margin[j] - top);
        sum += top + log(powers);
    }
    sums[me] = sum;
    // A tree, so that the order of the additions does not depend on timing.
    for (int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (me < half) sums[me] += sums[me + half];
    }
    if (me == 0) loss[p] = sums[0] / static_cast<T>(samples);
}

template <class T>
void run(const View& margins, std::int64_t members, std::int64_t samples, std::int64_t rows, void* loss, void* stream) {
    launch_pairs("robust_cross_entropy", loss_kernel<T>, members, 1, THREADS, THREADS * sizeof(T), stream, margins,
                 samples, rows, static_cast<T*>(loss));
}

}  // namespace

void run_robust_cross_entropy(const View& margins, std::int64_t members, std::int64_t samples, std::int64_t rows,
                              void* loss, bool is_double, void* stream) {
    (is_double ? run<double> : run<float>)(margins, members, samples, rows, loss, stream);
}

}  // namespace glsk::cuda
