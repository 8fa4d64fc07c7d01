// CUDA on the host, enough of it to run this project's kernels as they are: what the kernels see of it.
//
// The threads of a block are fibers of one OS thread (emulate.cpp): each runs until its next barrier. What a warp does
// together (a tensor-core product, a shuffle) makes its lanes wait for each other, but orders no memory, as CUDA has it:
// only barriers do. An observer is told of barriers and, if it wants, of memory accesses (emulate_blocks.h).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <tuple>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define GLSK_SHARED(name) unsigned char* name = ::emulate::shared_memory()

struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};

using std::exp;
using std::log;
using std::max;
using std::min;

extern dim3 threadIdx, blockIdx, blockDim, gridDim;

inline std::uint32_t __float_as_uint(float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, 4);
    return bits;
}
inline float __uint_as_float(std::uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

namespace emulate {

extern int shared_limit;     // bytes of shared memory of a thread block
extern int multiprocessors;

unsigned char* shared_memory();  // of the thread block that runs

using Call = void (*)(const void*);
void run_grid(unsigned grid, unsigned threads, std::size_t bytes, Call kernel, const void* arguments,
              std::size_t size);

// A named barrier (bar.sync id, threads), for some warps of a block.
void named_barrier(unsigned id, unsigned threads, const char* file = __builtin_FILE(), int line = __builtin_LINE());

}  // namespace emulate

// Not inlined, so that the address they return to tells which call it is.
void __syncthreads(const char* file = __builtin_FILE(), int line = __builtin_LINE());
void __syncwarp(unsigned mask = 0xffffffffu, const char* file = __builtin_FILE(), int line = __builtin_LINE());
float __shfl_xor_sync(unsigned mask, float value, int lanes, const char* file = __builtin_FILE(),
                      int line = __builtin_LINE());
double __shfl_xor_sync(unsigned mask, double value, int lanes, const char* file = __builtin_FILE(),
                       int line = __builtin_LINE());

// --- the runtime -----------------------------------------------------------------------------------------------------

using cudaError_t = int;
using cudaStream_t = void*;
enum cudaDeviceAttr {
    cudaDevAttrMultiProcessorCount,
    cudaDevAttrMaxSharedMemoryPerBlockOptin,
    cudaDevAttrComputeCapabilityMajor,
    cudaDevAttrComputeCapabilityMinor,
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
struct cudaFuncAttributes {};
constexpr cudaError_t cudaSuccess = 0;

inline const char* cudaGetErrorString(cudaError_t) { return "emulated"; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int) {
    *value = which == cudaDevAttrMultiProcessorCount ? emulate::multiprocessors : emulate::shared_limit;
    return cudaSuccess;
}
template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel, cudaFuncAttribute, int bytes) {
    return bytes > emulate::shared_limit ? 1 : cudaSuccess;
}
template <class Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes*, Kernel) {
    return cudaSuccess;
}

namespace glsk::cuda {

inline int thread_index() { return static_cast<int>(threadIdx.x); }
inline unsigned block_index() { return blockIdx.x; }
inline unsigned shared_address(const void* pointer) {
    return static_cast<unsigned>(static_cast<const unsigned char*>(pointer) - emulate::shared_memory());
}
template <class T>
T load_shared(unsigned address, unsigned offset) {
    return *reinterpret_cast<const T*>(emulate::shared_memory() + address + offset);
}
inline float load_again(const float* shared) { return *shared; }
template <class T>
T* in_register(T* pointer) {
    return pointer;
}

inline float from_bf16(std::uint32_t bits) { return __uint_as_float(bits << 16); }
// To the nearest, ties to even, as the instruction rounds.
inline std::uint32_t to_bf16(float value) {
    const std::uint32_t bits = __float_as_uint(value);
    return std::isnan(value) ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
inline unsigned pack_bf16(float low, float high) { return to_bf16(high) << 16 | to_bf16(low); }

float from_fp16(std::uint32_t bits);
std::uint32_t to_fp16(double value);  // to the nearest, ties to even
inline unsigned pack_fp16(float low, float high) { return to_fp16(high) << 16 | to_fp16(low); }
unsigned greater_fp16(unsigned a, unsigned b);
unsigned negative_fp16(unsigned a);
unsigned positive_product_fp16(unsigned a, unsigned b);
unsigned fma_fp16(unsigned a, unsigned b, unsigned c);

// mma.sync.m16n8k16, with the layout of the operands in the registers of the warp's lanes that the PTX ISA states.
void mma_bf16(float (&d)[4], const uint4& a, unsigned b0, unsigned b1, const float (&c)[4],
              const char* file = __builtin_FILE(), int line = __builtin_LINE());
void mma_fp16(float (&d)[4], const uint4& a, unsigned b0, unsigned b1, const float (&c)[4],
              const char* file = __builtin_FILE(), int line = __builtin_LINE());

// A kernel and its arguments, to be called by every thread. The copies that are made then are the launch's, not a
// thread's accesses.
template <class... Parameters>
struct Launch {
    void (*kernel)(Parameters...);
    std::tuple<Parameters...> arguments;

    __attribute__((no_sanitize("thread", "address"))) static void call(const void* launch) {
        const Launch& self = *static_cast<const Launch*>(launch);
        std::apply(self.kernel, self.arguments);
    }
};

template <class... Parameters, class... Arguments>
void start(void (*kernel)(Parameters...), unsigned grid, unsigned block, std::size_t shared, cudaStream_t,
           Arguments... arguments) {
    using Started = Launch<std::remove_const_t<Parameters>...>;
    const Started launch = {kernel, {arguments...}};
    emulate::run_grid(grid, block, shared, Started::call, &launch, sizeof launch);
}

}  // namespace glsk::cuda
