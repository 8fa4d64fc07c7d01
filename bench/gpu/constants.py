"""Measures the cost model's constants on this GPU (constants.cu): multiply-adds, products, L2, HBM, clock.

python -m bench.gpu.constants --out constants.json
"""

import argparse
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

SOURCE = Path(__file__).with_name("constants.cu")


def build(target: Path, arch: str) -> None:
    """Compile the program for sm_``arch``. Raises CalledProcessError."""
    subprocess.run(
        ["nvcc", "-std=c++17", "-O3", f"-gencode=arch=compute_{arch},code=sm_{arch}", "-o", str(target), str(SOURCE)],
        check=True,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.constants", description=__doc__)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    arch = "".join(map(str, torch.cuda.get_device_capability()))
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "constants")
        build(program, arch)
        text = subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout
    print(text, end="")
    if options.out:
        options.out.write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
