"""The emulation itself: what it must catch, it catches."""

import subprocess
from pathlib import Path

import pytest

from tests.cuda import emulation

KERNELS = r"""
#include <cstdio>
#include "cuda/platform.cuh"
__global__ void fine(int* out) {
    GLSK_SHARED(memory);
    int* shared = reinterpret_cast<int*>(memory);
    shared[threadIdx.x] = threadIdx.x;
    __syncthreads();
    out[threadIdx.x] = shared[blockDim.x - 1 - threadIdx.x];
}
__global__ void two_barriers(int* out) {
    if (threadIdx.x % 2 == 0) { __syncthreads(); out[0] = 1; } else { __syncthreads(); out[1] = 1; }
}
__global__ void two_warp_barriers(int* out) {
    if (threadIdx.x % 2 == 0) { __syncwarp(); out[0] = 1; } else { __syncwarp(); out[1] = 1; }
}
__global__ void not_all(int* out) {
    if (threadIdx.x != 3) __syncthreads();
    out[threadIdx.x] = 1;
}
__global__ void past_the_end(int* out) {
    GLSK_SHARED(memory);
    reinterpret_cast<int*>(memory)[blockDim.x + threadIdx.x] = 1;
}
int main(int, char** arguments) {
    static int out[64];
    void (*kernels[])(int*) = {fine, two_barriers, two_warp_barriers, not_all, past_the_end};
    try {
        glsk::cuda::start(kernels[arguments[1][0] - '0'], 1, 64, 64 * sizeof(int), nullptr, &out[0]);
    } catch (const std::exception& error) {
        return std::puts(error.what()), 1;
    }
    return std::puts("fine"), 0;
}
"""
SAID = {
    "fine": "fine",
    "two barriers": "threads wait together at different barriers of the code",
    "two barriers of a warp": "threads wait together at different barriers of the code",
    "a barrier that one thread never reaches": "some threads wait at a barrier that others never reach",
    "past the end of shared memory": "shared memory overrun",
}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if (reason := emulation.missing()) is not None:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("emulator")
    (folder / "kernels.cpp").write_text(KERNELS)
    made = folder / "kernels"
    includes = [f"-I{emulation.ROOT / 'csrc'}", f"-I{emulation.HERE}"]
    emulation._run(["g++", *emulation.FLAGS, *includes, str(folder / "kernels.cpp"), "-o", str(made)])
    return made


@pytest.mark.parametrize("number", range(len(SAID)), ids=list(SAID))
def test_faults_are_caught(program: Path, number: int) -> None:
    done = subprocess.run([str(program), str(number)], capture_output=True, text=True)
    assert list(SAID.values())[number] in done.stdout
    assert done.returncode == int(number > 0)
