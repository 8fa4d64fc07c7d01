"""Compiles glsk._C for fuzzing into build/fuzz/: the portable code alone, with AddressSanitizer and
UndefinedBehaviorSanitizer."""

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "fuzz"


def build() -> Path:
    """The sanitized extension's path, brought up to date by CMake; one compiler runs at a time unless MAX_JOBS is set.

    Raises:
        RuntimeError: without a C++ compiler, or if it does not compile; the message is the compiler's.
    """
    sys.path.insert(0, str(ROOT))
    from setup import tools

    _cmake("-S", ROOT, "-B", BUILD, *tools(), "-DGLSK_SANITIZE=ON", "-DGLSK_CPU=1", "-DGLSK_CUDA=0")
    _cmake("--build", BUILD, "--target", "_C", "--parallel", os.environ.get("MAX_JOBS", "1"))
    return BUILD / f"_C{sysconfig.get_config_var('EXT_SUFFIX')}"


def runtime() -> tuple[str, str]:
    """The compiler's AddressSanitizer runtime and its C++ standard library, which a process has to load first."""
    cxx = compiler()
    asan = _library(cxx, "libasan.so", f"libclang_rt.asan-{os.uname().machine}.so")
    return asan, _library(cxx, "libstdc++.so.6", "libc++.so.1")


def _cmake(*arguments: str | Path) -> None:
    result = subprocess.run([sys.executable, "-m", "cmake", *arguments], capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"{result.stdout}{result.stderr}\nleave the sanitized targets out with --no-sanitizers")


def compiler(folder: Path = BUILD) -> str:
    """The one that CMake has found for what it builds in a folder. Raises RuntimeError if there is none."""
    for path in folder.glob("CMakeFiles/*/CMakeCXXCompiler.cmake"):
        if found := re.search(r'^set\(CMAKE_CXX_COMPILER "(.+)"\)', path.read_text(), re.MULTILINE):
            return found.group(1)
    raise RuntimeError("no C++ compiler was found; leave the sanitized targets out with --no-sanitizers")


def _library(cxx: str, *names: str) -> str:
    for name in names:
        command = [cxx, f"-print-file-name={name}"]
        path = Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
        if path.is_absolute():
            return str(path.resolve())
    raise RuntimeError(f"{cxx} has none of {', '.join(names)}; leave the sanitizers out with --no-sanitizers")


if __name__ == "__main__":
    print(build())
