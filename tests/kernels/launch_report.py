"""Call every launcher through Triton's just-in-time path, for an H100 that is not there, and print what it launched.

A process of its own: the driver is a stand-in, and kernels are compiled but not run.
"""

import json
from dataclasses import replace

import torch
from torch import nn
from triton.backends.compiler import GPUTarget
from triton.runtime import driver, jit

import glsk
from glsk import backends


class Absent:
    """A driver with a device that cannot run anything."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def report() -> list[str]:
    """Names of the kernels launched, in order."""
    launched: list[str] = []
    run = jit.JITFunction.run

    def compile_only(self: jit.JITFunction, *args: object, grid: object, warmup: bool, **options: object) -> object:
        launched.append(self.__name__)
        return run(self, *args, grid=grid, warmup=True, **options)

    driver.set_active(Absent())
    jit.JITFunction.run = compile_only
    here = replace(backends._BACKENDS["triton"], why_missing=lambda: None, devices=("cpu",))
    backends._BACKENDS["triton"] = here

    net = nn.Sequential(
        *(nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(36, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)),
    )
    bounded = glsk.BoundedModule(net, (1, 6, 6))
    C = glsk.margins(torch.tensor([0, 1]), 3)
    params = torch.randn(2, bounded.num_parameters)
    for method in glsk.methods():
        bounded.compute_bounds(
            torch.rand(2, 1, 6, 6), eps=0.1, C=C, params=params, backend="triton", method=method, check_finite=False
        )
    margins = torch.randn(2, 3, 4)
    glsk.robust_cross_entropy(margins, backend="triton")
    return launched


if __name__ == "__main__":
    print(json.dumps(report()))
