// The one place that knows whether this is nvcc or the tests' emulation of it on the host (tests/cuda/emulate.h).
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>

#ifdef GLSK_EMULATE
#include "emulate.h"
#else
#include <cuda_runtime.h>

// Dynamic shared memory; a kernel has no other.
#define GLSK_SHARED(name) extern __shared__ __align__(16) unsigned char name[]

// threadIdx.x and blockIdx.x, read again at each call: the compiler cannot hold them, or what follows from them, in
// registers that a kernel needs for something else.
__device__ __forceinline__ int thread_index() {
    int index;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(index));
    return index;
}
__device__ __forceinline__ unsigned block_index() {
    unsigned index;
    asm volatile("mov.u32 %0, %%ctaid.x;" : "=r"(index));
    return index;
}

// A pointer to global memory, kept: the compiler does not put it together again from its parts each time it is used.
template <class T>
__device__ __forceinline__ T* in_register(T* global) {
    asm("" : "+l"(global));
    __builtin_assume(__isGlobal(global));
    return global;
}

// Shared memory by a 32-bit address, so that address arithmetic can use single bits of it.
__device__ __forceinline__ unsigned shared_address(const void* pointer) {
    return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}
// Read at this place and not kept from an earlier one.
__device__ __forceinline__ float load_again(const float* shared) {
    float value;
    asm volatile("ld.volatile.shared.f32 %0, [%1];" : "=f"(value) : "r"(shared_address(shared)));
    return value;
}
template <class T>
__device__ __forceinline__ T load_shared(unsigned address, unsigned offset) {
    return *static_cast<const T*>(__cvta_shared_to_generic(address + offset));
}

// Two floats as a pair of bfloat16, rounded to nearest.
__device__ __forceinline__ unsigned pack_bf16(float low, float high) {
    unsigned pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}
// The same of FP16; what is too large becomes an infinity.
__device__ __forceinline__ unsigned pack_fp16(float low, float high) {
    unsigned pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}
// Of two pairs of FP16: 1 where a > b, else 0; the smaller of a and 0, or NaN; a b, or 0 where that is not positive, of
// a NaN too; a b + c.
__device__ __forceinline__ unsigned greater_fp16(unsigned a, unsigned b) {
    unsigned pair;
    asm("set.gt.f16x2.f16x2 %0, %1, %2;" : "=r"(pair) : "r"(a), "r"(b));
    return pair;
}
__device__ __forceinline__ unsigned negative_fp16(unsigned a) {
    unsigned pair;
    asm("min.NaN.f16x2 %0, %1, %2;" : "=r"(pair) : "r"(a), "r"(0));
    return pair;
}
__device__ __forceinline__ unsigned positive_product_fp16(unsigned a, unsigned b) {
    unsigned pair;
    asm("fma.rn.relu.f16x2 %0, %1, %2, %3;" : "=r"(pair) : "r"(a), "r"(b), "r"(0));
    return pair;
}
__device__ __forceinline__ unsigned fma_fp16(unsigned a, unsigned b, unsigned c) {
    unsigned pair;
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(pair) : "r"(a), "r"(b), "r"(c));
    return pair;
}
// d = a b + c on tensor cores, the whole warp together: [16 x 16] times [16 x 8] bfloat16, summed in float. With
// g = lane / 4 and t = lane % 4, and two neighbours in k in each register of a and b:
//   a.x (row g, k 2t), a.y (row g + 8, k 2t), a.z (row g, k 2t + 8), a.w (row g + 8, k 2t + 8);
//   b0 (k 2t, column g), b1 (k 2t + 8, column g);
//   c[0], c[1] (row g, columns 2t, 2t + 1), c[2], c[3] (row g + 8).
__device__ __forceinline__ void mma_bf16(float (&d)[4], const uint4& a, unsigned b0, unsigned b1, const float (&c)[4]) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%10, %11, %12, %13};"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
}
// The same of FP16.
__device__ __forceinline__ void mma_fp16(float (&d)[4], const uint4& a, unsigned b0, unsigned b1, const float (&c)[4]) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%10, %11, %12, %13};"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
}

namespace glsk::cuda {

template <class... Parameters, class... Arguments>
void start(void (*kernel)(Parameters...), unsigned grid, unsigned block, std::size_t shared, cudaStream_t stream,
           Arguments... arguments) {
    kernel<<<grid, block, shared, stream>>>(arguments...);
}

}  // namespace glsk::cuda
#endif

namespace glsk::cuda {

inline void check(cudaError_t status, const char* what) {
    if (status != cudaSuccess) {
        cudaGetLastError();  // reported here: the next launch must not report it again
        throw std::runtime_error(std::string("CUDA: ") + what + ": " + cudaGetErrorString(status));
    }
}

// Makes a device current, and the previous one again at the end of the scope.
class DeviceGuard {
   public:
    explicit DeviceGuard(int device) {
        check(cudaGetDevice(&previous_), "reading the current device");
        if (device != previous_) check(cudaSetDevice(device), "selecting the tensors' device");
        device_ = device;
    }
    ~DeviceGuard() {
        if (device_ != previous_) cudaSetDevice(previous_);
    }
    DeviceGuard(const DeviceGuard&) = delete;
    DeviceGuard& operator=(const DeviceGuard&) = delete;

   private:
    int previous_ = 0, device_ = 0;
};

inline int attribute(cudaDeviceAttr which) {
    int device = 0, value = 0;
    check(cudaGetDevice(&device), "reading the current device");
    check(cudaDeviceGetAttribute(&value, which, device), "reading a device attribute");
    return value;
}

// More than 48 KiB of shared memory has to be asked for.
template <class Kernel>
void allow_shared(Kernel kernel, std::size_t bytes) {
    if (bytes > 48 * 1024) {
        check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
              "raising a kernel's shared memory");
    }
}

template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), unsigned grid, unsigned block, std::size_t shared,
            void* stream, Arguments... arguments) {
    allow_shared(kernel, shared);
    start(kernel, grid, block, shared, static_cast<cudaStream_t>(stream), arguments...);
    check(cudaGetLastError(), name);
}

// per_pair thread blocks for every (member, sample) pair. A grid holds at most 2^31 - 1 blocks: more take several
// launches, so a kernel's last parameter is the first pair of its launch.
template <class... Parameters, class... Arguments>
void launch_pairs(const char* name, void (*kernel)(Parameters...), std::int64_t pairs, std::int64_t per_pair,
                  unsigned block, std::size_t shared, void* stream, Arguments... arguments) {
    const std::int64_t most = std::max<std::int64_t>(1, 0x7fffffff / per_pair);
    for (std::int64_t first = 0; first < pairs; first += most) {
        const unsigned grid = static_cast<unsigned>(std::min(pairs - first, most) * per_pair);
        launch(name, kernel, grid, block, shared, stream, arguments..., first);
    }
}

template <class T>
__host__ __device__ constexpr T divide_up(T a, T b) {
    return (a + b - 1) / b;
}

}  // namespace glsk::cuda
