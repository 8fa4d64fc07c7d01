// CUDA on the host, enough of it to run this project's kernels as they are, one thread block after another.
//
// The threads of a block are fibers of one OS thread: each runs until its next barrier, the block's or its warp's.
// Between two barriers they run in the order 0, 1, 2, .. or the reverse; results that differ between the two give
// away a data race. What a warp does together (a tensor-core product, a shuffle) is a barrier of the warp.
// Shared memory starts as NaN with a guard after its end, so reading what nobody wrote, or writing past the end, shows.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <array>
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

inline dim3 threadIdx, blockIdx, blockDim, gridDim;

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

inline bool reversed = false;        // order of the threads between two barriers
inline int shared_limit = 227 << 10; // bytes of shared memory of a thread block
inline int multiprocessors = 2;

constexpr std::size_t STACK = 256 << 10, GUARD = 256;
constexpr unsigned char GUARD_BYTE = 0xa5;

constexpr unsigned WARP = 32;

enum class State { ready, at_warp_barrier, at_block_barrier, done };

struct Fiber {
    ucontext_t context;
    State state = State::ready;
    const void* at = nullptr;  // the call of the barrier that it waits at
};

inline ucontext_t scheduler;
inline std::vector<Fiber> fibers;
inline std::vector<unsigned char> stacks, shared;
inline unsigned char* shared_at = nullptr;
inline std::function<void()> body;
inline unsigned current = 0;

inline unsigned char* shared_memory() { return shared_at; }

inline void leave(State state, const void* at = nullptr) {
    const unsigned me = current;
    fibers[me].state = state, fibers[me].at = at;
    swapcontext(&fibers[me].context, &scheduler);
}

inline void enter() {
    body();
    leave(State::done);
}

// Lets those of the fibers [begin, end) go on that wait at a barrier, if all of them do: at the same call of it. A device
// would let some of them through together even at different ones, and what follows would be anybody's guess.
inline bool release(unsigned begin, unsigned end, State barrier) {
    for (unsigned t = begin; t < end; ++t) {
        if (fibers[t].state != barrier) return false;
    }
    for (unsigned t = begin; t < end; ++t) {
        if (fibers[t].at != fibers[begin].at) {
            throw std::logic_error("emulation: threads wait together at different barriers of the code");
        }
    }
    for (unsigned t = begin; t < end; ++t) fibers[t].state = State::ready;
    return true;
}

inline void run_block(unsigned threads) {
    fibers.resize(threads);
    if (stacks.size() < threads * STACK) stacks.resize(threads * STACK);
    for (unsigned t = 0; t < threads; ++t) {
        fibers[t].state = State::ready;
        getcontext(&fibers[t].context);
        fibers[t].context.uc_stack.ss_sp = &stacks[t * STACK];
        fibers[t].context.uc_stack.ss_size = STACK;
        fibers[t].context.uc_link = nullptr;
        makecontext(&fibers[t].context, enter, 0);
    }
    for (;;) {
        for (unsigned i = 0; i < threads; ++i) {
            current = reversed ? threads - 1 - i : i;
            if (fibers[current].state != State::ready) continue;
            threadIdx.x = current;
            swapcontext(&scheduler, &fibers[current].context);
        }
        bool released = false;
        for (unsigned w = 0; w < threads; w += WARP) {
            released |= release(w, std::min(w + WARP, threads), State::at_warp_barrier);
        }
        if (released || release(0, threads, State::at_block_barrier)) continue;
        for (unsigned t = 0; t < threads; ++t) {
            if (fibers[t].state != State::done) {
                throw std::logic_error("emulation: some threads wait at a barrier that others never reach");
            }
        }
        return;
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

// What every lane of the warp gives, for all of them to read, once all have given. The next exchange uses other memory,
// so that a fast lane does not overwrite what a slow one still reads.
template <std::size_t SIZE>
struct Exchange {
    using Values = std::array<std::uint32_t, SIZE>;

    static const Values* all(const Values& mine) {
        static std::vector<Values> given[2];
        static std::vector<unsigned char> turn;
        const unsigned me = current, first = me / WARP * WARP;
        if (turn.size() <= me) turn.resize(me + 1);
        std::vector<Values>& now = given[turn[me] ^= 1];
        if (now.size() < first + WARP) now.resize(first + WARP);
        now[me] = mine;
        const unsigned char which = turn[me];
        leave(State::at_warp_barrier);
        return &given[which][first];
    }
};

}  // namespace emulate

// Not inlined, so that the address they return to tells which call it is.
__attribute__((noinline)) inline void __syncthreads() {
    emulate::leave(emulate::State::at_block_barrier, __builtin_return_address(0));
}
__attribute__((noinline)) inline void __syncwarp() {
    emulate::leave(emulate::State::at_warp_barrier, __builtin_return_address(0));
}

inline float __shfl_xor_sync(unsigned, float value, int mask) {
    const unsigned lane = emulate::current % emulate::WARP;
    return __uint_as_float(emulate::Exchange<1>::all({__float_as_uint(value)})[lane ^ mask][0]);
}

inline double __shfl_xor_sync(unsigned, double value, int mask) {
    const unsigned lane = emulate::current % emulate::WARP;
    std::array<std::uint32_t, 2> words;
    std::memcpy(words.data(), &value, 8);
    words = emulate::Exchange<2>::all(words)[lane ^ mask];
    std::memcpy(&value, words.data(), 8);
    return value;
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

// mma.sync.m16n8k16, with the layout of the operands in the registers of the warp's lanes that the PTX ISA states.
inline void mma_bf16(float (&d)[4], const uint4& a, unsigned b0, unsigned b1, const float (&c)[4]) {
    const unsigned lane = emulate::current % emulate::WARP, g = lane / 4, t = lane % 4;
    const auto* given = emulate::Exchange<6>::all({a.x, a.y, a.z, a.w, b0, b1});
    float result[4];
    for (unsigned i = 0; i < 4; ++i) {
        const unsigned row = i / 2, column = 2 * t + i % 2;
        double sum = c[i];
        for (unsigned k = 0; k < 16; ++k) {
            const unsigned from = k % 8 / 2, half = 16 * (k % 2);
            const std::uint32_t left = given[4 * g + from][2 * (k / 8) + row] >> half & 0xffff;
            const std::uint32_t right = given[4 * column + from][4 + k / 8] >> half & 0xffff;
            sum += double(from_bf16(left)) * from_bf16(right);
        }
        result[i] = static_cast<float>(sum);
    }
    std::copy(result, result + 4, d);
}

template <class... Parameters, class... Arguments>
void start(void (*kernel)(Parameters...), unsigned grid, unsigned block, std::size_t shared, cudaStream_t,
           Arguments... arguments) {
    emulate::run_grid(grid, block, shared, [&] { kernel(arguments...); });
}

}  // namespace glsk::cuda
