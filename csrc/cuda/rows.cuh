// Which rows a thread block has to back-substitute: pruning and compaction.
#pragma once

#include "relaxation.cuh"

namespace glsk::cuda {

// Rows are visited position by position, all channels of one output position together: those share a window of inputs.
__device__ __forceinline__ int row_at(const Pass& pass, int order) {
    if (pass.C.data != nullptr) return order;
    const Layer& last = pass.layer[pass.layers - 1];
    const int positions = last.out_height * last.out_width;
    return (order % last.out_channels) * positions + order / last.out_channels;
}

// Writes to list the numbers below size that keep(number) is true for, in order. All threads of the block call it; counts
// has blockDim.x + 1 entries, and the last one becomes how many there are. Begins with a barrier: what was done with the
// list before is done by all threads when it is written. Ends with one.
template <class Keep>
__device__ __forceinline__ void compact(int size, Keep keep, int* list, int* counts) {
    const int threads = blockDim.x, me = threadIdx.x;
    const int segment = divide_up(size, threads), begin = min(me * segment, size), end = min(begin + segment, size);
    int mine = 0;
    for (int i = begin; i < end; ++i) mine += keep(i) ? 1 : 0;
    counts[me] = mine;
    __syncthreads();
    int at = 0;
    for (int t = 0; t < me; ++t) at += counts[t];
    if (me == threads - 1) counts[threads] = at + mine;
    for (int i = begin; i < end; ++i) {
        if (keep(i)) list[at++] = i;
    }
    __syncthreads();
}

// Compacts the chunk's rows (as visiting order minus first) that known bounds do not prove stable, and copies the known
// bounds of the others to the results.
template <class T>
__device__ void unstable_rows(const Pass& pass, std::int64_t p, std::int64_t b, int first, int size, int* list,
                              int* counts) {
    const T* known_lower = slice<T>(pass.known_lower, p, b);
    const T* known_upper = slice<T>(pass.known_upper, p, b);
    const std::int64_t out = (p * pass.samples + b) * pass.rows;
    const bool prune = pass.known_lower.data != nullptr;
    const auto unstable = [&](int i) {
        const int row = row_at(pass, first + i);
        if (!prune || !(known_lower[row] >= T(0) || known_upper[row] <= T(0))) return true;
        static_cast<T*>(pass.lower)[out + row] = known_lower[row];
        if (pass.signs == 2) static_cast<T*>(pass.upper)[out + row] = known_upper[row];
        return false;
    };
    compact(size, unstable, list, counts);
}

}  // namespace glsk::cuda
