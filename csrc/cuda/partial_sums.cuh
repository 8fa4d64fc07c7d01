// Partial results of several thread blocks, added up in a fixed order.
#pragma once

#include "platform.cuh"

namespace glsk::cuda {

constexpr int SUM_THREADS = 256;

// to[group][i] = sum over the group's parts of from[(group * parts + part) * pitch + i], i < size.
template <class T>
__global__ void __launch_bounds__(SUM_THREADS)
    sum_kernel(const T* from, T* to, const std::int64_t size, const std::int64_t pitch, const int parts,
               const unsigned blocks, const std::int64_t first) {
    const std::int64_t group = first + blockIdx.x / blocks;
    const std::int64_t i = std::int64_t(blockIdx.x % blocks) * SUM_THREADS + threadIdx.x;
    if (i >= size) return;
    T sum = T(0);
    for (int part = 0; part < parts; ++part) sum += from[(group * parts + part) * pitch + i];
    to[group * size + i] = sum;
}

template <class T>
void sum_parts(const T* from, T* to, std::int64_t groups, std::int64_t size, std::int64_t pitch, int parts,
               void* stream) {
    const std::int64_t blocks = divide_up<std::int64_t>(size, SUM_THREADS);
    launch_pairs("partial sums", sum_kernel<T>, groups, blocks, SUM_THREADS, 0, stream, from, to, size, pitch, parts,
                 static_cast<unsigned>(blocks));
}

}  // namespace glsk::cuda
