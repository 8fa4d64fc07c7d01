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
