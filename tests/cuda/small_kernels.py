"""Kernels of a line or two, right and wrong ones, to try the emulator with."""

from pathlib import Path

from tests.cuda import emulation

HEAD = r"""
#include <cstdio>
#include "cuda/platform.cuh"
"""
MAIN = r"""
int main(int, char** arguments) {
    static int out[256];
    void (*kernels[])(int*) = {%s};
    try {
        glsk::cuda::start(kernels[std::atoi(arguments[1])], 2, 64, 66 * sizeof(int), nullptr, &out[0]);
    } catch (const std::exception& error) {
        return std::puts(error.what()), 1;
    }
    return std::puts("fine"), 0;
}
"""
# What a thread of two blocks of 64 does with 66 ints of shared memory and 256 of global memory; and what is said of it.
KERNELS = {
    "fine": ("shared[me] = me; __syncthreads(); mine[me] = shared[63 - me];", "fine"),
    "fine, within a warp": ("shared[me] = me; __syncwarp(); mine[me] = shared[me ^ 31];", "fine"),
    "fine, lanes of half a warp": (
        "shared[me] = me; if (me % 2) __syncwarp(0xaaaaaaaa); mine[me] = shared[me % 2 ? me ^ 2 : me];",
        "fine",
    ),
    "fine, a named barrier of one warp": (
        "if (me < 32) { shared[me] = me; emulate::named_barrier(1, 32); mine[me] = shared[31 - me]; }",
        "fine",
    ),
    "two barriers": (
        "if (me % 2) { __syncthreads(); out[0] = 1; } else { __syncthreads(); out[1] = 1; }",
        "threads wait together at different barriers of the code",
    ),
    "two barriers of a warp": (
        "if (me % 2) { __syncwarp(); out[0] = 1; } else { __syncwarp(); out[1] = 1; }",
        "threads wait together at different barriers of the code",
    ),
    "a barrier that one thread never reaches": (
        "if (me != 3) __syncthreads();",
        "some threads wait at a barrier that others never reach: kernels.cu:",
    ),
    "a shuffle in divergent code": (
        "if (me % 2) mine[me] = __shfl_xor_sync(0xffffffff, 1.f, 1);",
        "some threads wait at a barrier that others never reach",
    ),
    "lanes that are not in their own mask": ("__syncwarp(0xffff);", "some threads wait at a barrier"),
    "a named barrier for too many": (
        "if (me < 32) emulate::named_barrier(1, 64);",
        "some threads wait at a barrier that others never reach",
    ),
    "a named barrier for different numbers": (
        "emulate::named_barrier(1, me < 32 ? 64 : 96);",
        "threads wait at a barrier for different numbers of threads",
    ),
    "past the end of shared memory": ("shared[me + 3] = 1;", "shared memory overrun"),
    "read by another lane": ("shared[me] = me; mine[me] = shared[me ^ 1];", "race: "),
    "a shuffle is no barrier": (
        "shared[me] = me; float x = __shfl_xor_sync(0xffffffff, 1.f, 1); mine[me] = shared[me ^ 1] + x;",
        "race: written at kernels.cu:",
    ),
    "a tensor-core product is no barrier": (
        "float d[4] = {}; shared[me] = me; glsk::cuda::mma_bf16(d, uint4{}, 0, 0, d); mine[me] = shared[me ^ 1];",
        "race: written at kernels.cu:",
    ),
    "a warp's barrier, but another warp's memory": (
        "shared[me] = me; __syncwarp(); mine[me] = shared[me ^ 32];",
        "race: ",
    ),
    "a barrier of the other half of the warp": (
        "shared[me] = me; __syncwarp(me % 2 ? 0xaaaaaaaa : 0x55555555); mine[me] = shared[me ^ 1];",
        "race: ",
    ),
    "a named barrier of other warps": (
        "shared[me] = me; emulate::named_barrier(me < 32 ? 1 : 2, 32); mine[me] = shared[me ^ 32];",
        "race: ",
    ),
    "overwritten while others read": (
        "shared[me] = me; __syncwarp(); mine[me] = shared[me ^ 1]; shared[me] = 2;",
        "race: read at kernels.cu:",
    ),
    "memory of two blocks": ("out[me] = 1;", "(thread 0 of block 1) without a barrier between: memory"),
    "what another block has written": ("mine[me] = 1; __syncthreads(); out[128] = out[blockIdx.x ^ 1];", "race: "),
    "what nobody has written": (
        "mine[me] = shared[me];",
        "nothing has been written there: shared memory of block 0 + 0",
    ),
    "a vector in the wrong place": (
        "shared[me + 1] = 0; __syncthreads(); if (me == 0) mine[0] = (int) reinterpret_cast<float4*>(shared + 1)->y;",
        "misaligned at ",
    ),
    "a wide copy in the wrong place": (
        "shared[me] = me; __syncthreads(); "
        "if (me < 8 && blockIdx.x == 0) reinterpret_cast<uint4*>(out + 129)[me * 2] = uint4{};",
        "misaligned at ",
    ),
}


def program(variant: emulation.Variant, folder: Path) -> Path:
    """Which runs the kernel of the number that it is given; its source and objects go to the folder."""
    source = folder / "kernels.cu"
    begin = "GLSK_SHARED(memory); int* shared = reinterpret_cast<int*>(memory); const int me = threadIdx.x;"
    begin += " int* mine = out + 64 * blockIdx.x; (void)shared, (void)mine;"
    kernels = [
        f"__global__ void kernel_{i}(int* out) {{ {begin}\n{body}\n}}" for i, (body, _) in enumerate(KERNELS.values())
    ]
    names = ", ".join(f"kernel_{i}" for i in range(len(KERNELS)))
    source.write_text("\n".join([HEAD, *kernels, MAIN % names]))
    return emulation.built(variant, "kernels", [], [], [source])
