"""Builds glsk in place for the GPU of this machine, and says what is there afterwards."""

import os
import subprocess
import sys

import torch


def main() -> int:
    environment = dict(os.environ, GLSK_CUDA="1")
    if "GLSK_CUDA_ARCHS" not in environment and torch.cuda.is_available():
        environment["GLSK_CUDA_ARCHS"] = "".join(map(str, torch.cuda.get_device_capability()))
    command = [sys.executable, "-m", "pip", "install", "--no-build-isolation", "--no-deps", "--editable", "."]
    status = subprocess.run(command, env=environment).returncode
    return status or subprocess.run([sys.executable, "-m", "glsk.info"]).returncode


if __name__ == "__main__":
    raise SystemExit(main())
