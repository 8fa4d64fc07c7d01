// A thread block's loop over [outer, middle, inner] without divisions: each thread takes every blockDim.x-th element.
#pragma once

#include "platform.cuh"

namespace glsk::cuda {

struct Strided {
    int index, outer, middle, inner;

    __device__ __forceinline__ Strided(int middles, int inners) : middles_(middles), inners_(inners) {
        split(threadIdx.x, outer, middle, inner);
        split(blockDim.x, outer_step_, middle_step_, inner_step_);
        index = threadIdx.x;
    }

    __device__ __forceinline__ void next() {
        index += blockDim.x;
        inner += inner_step_;
        middle += middle_step_;
        outer += outer_step_;
        if (inner >= inners_) inner -= inners_, ++middle;
        if (middle >= middles_) middle -= middles_, ++outer;
    }

   private:
    __device__ __forceinline__ void split(int i, int& a, int& b, int& c) const {
        c = i % inners_, b = i / inners_ % middles_, a = i / inners_ / middles_;
    }

    int middles_, inners_, outer_step_, middle_step_, inner_step_;
};

// Calls write(index, read(outer, middle, inner)) for every element, with the reads of BATCH elements issued before
// the first of them is used: device memory answers late. read is also called for elements past the end, with the last
// outer, so it must be able to.
template <int BATCH, class Read, class Write>
__device__ __forceinline__ void batched(Strided i, int outers, Read read, Write write) {
    while (i.outer < outers) {
        decltype(read(0, 0, 0)) value[BATCH];
        int index[BATCH], outer[BATCH];
#pragma unroll
        for (int j = 0; j < BATCH; ++j) {
            index[j] = i.index, outer[j] = i.outer;
            value[j] = read(min(i.outer, outers - 1), i.middle, i.inner);
            i.next();
        }
#pragma unroll
        for (int j = 0; j < BATCH; ++j) {
            if (outer[j] < outers) write(index[j], value[j]);
        }
    }
}

}  // namespace glsk::cuda
