"""Builds glsk's native extensions into this source tree, for work on them:  python setup.py [-DGLSK_CUDA=0 ...]

``pip install .`` does not come here: it builds through pyproject.toml. Both run CMakeLists.txt, which says what is
built and which variables decide about it; arguments are passed on to CMake. Needs the packages cmake, ninja, pybind11.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
BUILD = ROOT / "build" / f"inplace-{sys.implementation.cache_tag}"


def main(arguments: list[str]) -> None:
    """Configure, compile what is stale and put the extensions beside the Python files that import them."""
    run("-S", str(ROOT), "-B", str(BUILD), *tools(), *arguments)
    run("--build", str(BUILD))
    run("--install", str(BUILD), "--prefix", str(ROOT), "--component", "native")


def tools() -> list[str]:
    """What tells CMake to use this environment's own Ninja, Python and pybind11."""
    import ninja
    import pybind11

    return [
        "-GNinja",
        f"-DCMAKE_MAKE_PROGRAM={Path(ninja.BIN_DIR, 'ninja')}",
        f"-DPython_EXECUTABLE={sys.executable}",
        f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
    ]


def run(*arguments: str) -> None:
    if code := subprocess.run([sys.executable, "-m", "cmake", *arguments]).returncode:
        raise SystemExit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
