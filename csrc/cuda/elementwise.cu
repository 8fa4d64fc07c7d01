// hbox_relu: one value in, one value out.
#include "api.h"
#include "platform.cuh"
#include "relaxation.cuh"

namespace glsk::cuda {
namespace {

constexpr int THREADS = 256;

template <class T>
__global__ void hbox_kernel(const T* box_lower, const T* box_upper, const T* lower, const T* upper, T* out_lower,
                            T* out_upper, const T leak, const std::int64_t size, const std::int64_t first) {
    const std::int64_t i = (first + blockIdx.x) * THREADS + threadIdx.x;
    if (i >= size) return;
    const T l = lower[i], u = upper[i], none = poison(l, u);
    const bool active = l >= T(0);
    // leak z + (1 - leak) ReLU(z): below an unstable unit's mask only leak z stays an exact function of the input.
    out_lower[i] = (active ? T(1) : leak) * box_lower[i] + none;
    out_upper[i] = (active ? box_upper[i] : leak * box_upper[i] + (T(1) - leak) * (u < T(0) ? T(0) : u)) + none;
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
void hbox(const void* box_lower, const void* box_upper, const void* lower, const void* upper, void* out_lower,
          void* out_upper, double leak, std::int64_t size, void* stream) {
    launch_pairs("hbox_relu", hbox_kernel<T>, divide_up<std::int64_t>(size, THREADS), 1, THREADS, 0, stream,
                 in<T>(box_lower), in<T>(box_upper), in<T>(lower), in<T>(upper), out<T>(out_lower), out<T>(out_upper),
                 T(leak), size);
}

}  // namespace

void run_hbox_relu(const void* box_lower, const void* box_upper, const void* lower, const void* upper, void* out_lower,
                   void* out_upper, double leak, std::int64_t size, bool is_double, void* stream) {
    (is_double ? hbox<double> : hbox<float>)(box_lower, box_upper, lower, upper, out_lower, out_upper, leak, size,
                                             stream);
}

}  // namespace glsk::cuda
