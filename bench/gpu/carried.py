"""The CUDA kernels, compiled on one machine and carried to one with a GPU, whose Python may be another.

    python -m bench.gpu.carried --archs 90        compiles them into build/carried, in some minutes

Kernels know nothing of Python. Where ``bench.gpu.build`` finds the folder and it fits, it compiles the bindings alone.
"""

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.cost.sass import nvcc_version

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "carried"
LIBRARY, ORIGIN = "libglsk_cuda.a", "origin.json"


def origin(archs: Sequence[str]) -> dict[str, object]:
    """What a library must have been made of to fit: sources, compiler, system, architectures."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / "csrc" / "cuda").iterdir()):
        if path.suffix in (".cu", ".cuh", ".h"):
            digest.update(path.name.encode() + path.read_bytes())
    system = f"{platform.system()} {platform.machine()}"
    return {"sources": digest.hexdigest(), "nvcc": nvcc_version(), "system": system, "archs": list(archs)}


def fitting(arch: str, folder: Path = FOLDER) -> Path | None:
    """The library, if there is one of these sources, by this version of nvcc, for this architecture."""
    if not (folder / LIBRARY).exists() or not (folder / ORIGIN).exists():
        return None
    found = json.loads((folder / ORIGIN).read_text())
    return folder / LIBRARY if arch in found["archs"] and found == origin(found["archs"]) else None


def make(archs: Sequence[str]) -> None:
    """Compile the kernels into :data:`FOLDER`. Raises CalledProcessError."""
    from setup import tools

    build, cmake = ROOT / "build" / "carried-build", [sys.executable, "-m", "cmake"]
    environment = os.environ | {"GLSK_CPU": "0", "GLSK_CUDA": "1", "GLSK_CUDA_ARCHS": ";".join(archs)}
    environment.pop("GLSK_CUDA_LIBRARY", None)
    (FOLDER / ORIGIN).unlink(missing_ok=True)  # until the library is the one it tells of
    for command in (
        ["-S", str(ROOT), "-B", str(build), *tools()],
        ["--build", str(build), "--target", "glsk_cuda"],
        ["--install", str(build), "--prefix", str(FOLDER), "--component", "kernels"],
    ):
        subprocess.run([*cmake, *command], env=environment, check=True)
    (FOLDER / ORIGIN).write_text(json.dumps(origin(archs), indent=1) + "\n")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.carried", description=__doc__)
    parser.add_argument("--archs", nargs="+", default=["90"], help="compute capabilities, such as 80 90")
    make(parser.parse_args(arguments).archs)
    print(f"{FOLDER / LIBRARY}: {(FOLDER / LIBRARY).stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
