"""Builds glsk in place for the GPU of this machine, and says what is there afterwards.

Kernels that were compiled elsewhere (``bench.gpu.carried``) are taken where they fit.
"""

import os
import subprocess
import sys

import torch

from bench.gpu import carried


def main() -> int:
    environment = dict(os.environ, GLSK_CUDA="1")
    if torch.cuda.is_available():
        arch = "".join(map(str, torch.cuda.get_device_capability()))
        environment.setdefault("GLSK_CUDA_ARCHS", arch)
        library = carried.fitting(arch)
        if library is not None:
            environment.setdefault("GLSK_CUDA_LIBRARY", str(library))
            print(f"kernels: {library}", flush=True)
    command = [sys.executable, "-m", "pip", "install", "--no-build-isolation", "--no-deps", "--editable", "."]
    status = subprocess.run(command, env=environment).returncode
    return status or subprocess.run([sys.executable, "-m", "glsk.info"]).returncode


if __name__ == "__main__":
    raise SystemExit(main())
