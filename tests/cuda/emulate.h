// CUDA on the host, enough of it to run this project's kernels as they are, one thread block after another.
//
// The threads of a block are fibers of one OS thread: each runs until its next __syncthreads. Between two barriers they
// run in the order 0, 1, 2, .. or the reverse; results that differ between the two orders give away a data race.
// Shared memory starts as NaN with a guard after its end, so reading what nobody wrote, or writing past the end, shows.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <stdexcept>
#include <vector>

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
struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};

using std::exp;
using std::log;
using std::max;
using std::min;

inline dim3 threadIdx, blockIdx, blockDim, gridDim;

inline std::uint32_t __float_as_uint(float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, 4);
    return bits;
}

namespace emulate {

inline bool reversed = false;        // order of the threads between two barriers
inline int shared_limit = 227 << 10; // bytes of shared memory of a thread block
inline int multiprocessors = 2;

constexpr std::size_t STACK = 256 << 10, GUARD = 256;
constexpr unsigned char GUARD_BYTE = 0xa5;

struct Fiber {
    ucontext_t context;
    bool done = false;
};

inline ucontext_t scheduler;
inline std::vector<Fiber> fibers;
inline std::vector<unsigned char> stacks, shared;
inline unsigned char* shared_at = nullptr;
inline std::function<void()> body;
inline unsigned current = 0;

inline unsigned char* shared_memory() { return shared_at; }

inline void enter() {
    body();
    fibers[current].done = true;
    swapcontext(&fibers[current].context, &scheduler);
}

inline void run_block(unsigned threads) {
    fibers.resize(threads);
    if (stacks.size() < threads * STACK) stacks.resize(threads * STACK);
    for (unsigned t = 0; t < threads; ++t) {
        fibers[t].done = false;
        getcontext(&fibers[t].context);
        fibers[t].context.uc_stack.ss_sp = &stacks[t * STACK];
        fibers[t].context.uc_stack.ss_size = STACK;
        fibers[t].context.uc_link = nullptr;
        makecontext(&fibers[t].context, enter, 0);
    }
    for (;;) {
        unsigned waiting = 0, done = 0;
        for (unsigned i = 0; i < threads; ++i) {
            current = reversed ? threads - 1 - i : i;
            if (fibers[current].done) continue;
            threadIdx.x = current;
            swapcontext(&scheduler, &fibers[current].context);
            ++(fibers[current].done ? done : waiting);
        }
        if (waiting == 0) return;
        if (done != 0) throw std::logic_error("emulation: some threads wait at a barrier that others never reach");
    }
}

inline void run_grid(unsigned grid, unsigned threads, std::size_t bytes, const std::function<void()>& kernel) {
    if (bytes > static_cast<std::size_t>(shared_limit)) throw std::logic_error("emulation: too much shared memory");
    shared.assign(bytes + GUARD + 16, 0xff);  // as floats: NaN
    shared_at = shared.data() + (16 - reinterpret_cast<std::uintptr_t>(shared.data()) % 16) % 16;
    body = kernel;
    gridDim.x = grid, blockDim.x = threads;
    for (unsigned b = 0; b < grid; ++b) {
        blockIdx.x = b;
        std::memset(shared_at, 0xff, bytes);
        std::memset(shared_at + bytes, GUARD_BYTE, GUARD);
        run_block(threads);
        for (std::size_t i = 0; i < GUARD; ++i) {
            if (shared_at[bytes + i] != GUARD_BYTE) throw std::logic_error("emulation: shared memory overrun");
        }
    }
}

}  // namespace emulate

inline void __syncthreads() {
    const unsigned me = emulate::current;
    swapcontext(&emulate::fibers[me].context, &emulate::scheduler);
}

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
    return static_cast<unsigned>(static_cast<const unsigned char*>(pointer) - emulate::shared_at);
}
template <class T>
T load_shared(unsigned address, unsigned offset) {
    return *reinterpret_cast<const T*>(emulate::shared_at + address + offset);
}
inline float load_again(const float* shared) { return *shared; }

template <class... Parameters, class... Arguments>
void start(void (*kernel)(Parameters...), unsigned grid, unsigned block, std::size_t shared, cudaStream_t,
           Arguments... arguments) {
    emulate::run_grid(grid, block, shared, [&] { kernel(arguments...); });
}

}  // namespace glsk::cuda
