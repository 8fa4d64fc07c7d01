// relu_relaxation and hbox_relu: one value in, one value out.
#include "api.h"
#include "platform.cuh"
#include "relaxation.cuh"

namespace glsk::cuda {
namespace {

constexpr int THREADS = 256;

template <class T>
__global__ void relaxation_kernel(const T* lower, const T* upper, T* lower_slope, T* upper_slope, T* intercept,
                                  const std::int64_t size, const std::int64_t first) {
    const std::int64_t i = (first + blockIdx.x) * THREADS + threadIdx.x;
    if (i >= size) return;
    const Relaxation<T> r = relax(lower[i], upper[i]);
    lower_slope[i] = r.lower_slope, upper_slope[i] = r.upper_slope, intercept[i] = r.intercept;
}

template <class T>
__global__ void hbox_kernel(const T* box_lower, const T* box_upper, const T* lower, const T* upper, T* out_lower,
                            T* out_upper, const std::int64_t size, const std::int64_t first) {
    const std::int64_t i = (first + blockIdx.x) * THREADS + threadIdx.x;
    if (i >= size) return;
    const bool active = lower[i] >= T(0);
    const T positive = upper[i] < T(0) ? T(0) : upper[i];  // keeps NaN
    out_lower[i] = active ? box_lower[i] : T(0);
    out_upper[i] = active ? box_upper[i] : positive;
}

template <class T>
const T* in(const void* pointer) {
    return static_cast<const T*>(pointer);
}

template <class T>
T* out(void* pointer) {
    return static_cast<T*>(pointer);
}

template <class T>
void relaxation(const void* lower, const void* upper, void* lower_slope, void* upper_slope, void* intercept,
                std::int64_t size, void* stream) {
    launch_pairs("relu_relaxation", relaxation_kernel<T>, divide_up<std::int64_t>(size, THREADS), 1, THREADS, 0, stream,
                 in<T>(lower), in<T>(upper), out<T>(lower_slope), out<T>(upper_slope), out<T>(intercept), size);
}

template <class T>
void hbox(const void* box_lower, const void* box_upper, const void* lower, const void* upper, void* out_lower,
          void* out_upper, std::int64_t size, void* stream) {
    launch_pairs("hbox_relu", hbox_kernel<T>, divide_up<std::int64_t>(size, THREADS), 1, THREADS, 0, stream,
                 in<T>(box_lower), in<T>(box_upper), in<T>(lower), in<T>(upper), out<T>(out_lower), out<T>(out_upper),
                 size);
}

}  // namespace

void run_relu_relaxation(const void* lower, const void* upper, void* lower_slope, void* upper_slope, void* intercept,
                         std::int64_t size, bool is_double, void* stream) {
    (is_double ? relaxation<double> : relaxation<float>)(lower, upper, lower_slope, upper_slope, intercept, size,
                                                         stream);
}

void run_hbox_relu(const void* box_lower, const void* box_upper, const void* lower, const void* upper, void* out_lower,
                   void* out_upper, std::int64_t size, bool is_double, void* stream) {
    (is_double ? hbox<double> : hbox<float>)(box_lower, box_upper, lower, upper, out_lower, out_upper, size, stream);
}

}  // namespace glsk::cuda
