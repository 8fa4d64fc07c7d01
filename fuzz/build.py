"""Compiles glsk._C for fuzzing into build/fuzz/: AddressSanitizer, UndefinedBehaviorSanitizer, the portable code alone.

Its units, flags and staleness rules are those of setup.py; one compiler runs at a time unless MAX_JOBS says otherwise.
"""

import importlib.util
import os
import shlex
import subprocess
import sysconfig
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "build" / "fuzz" / f"_C{sysconfig.get_config_var('EXT_SUFFIX')}"
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]


def build() -> Path:
    """The sanitized extension's path, brought up to date.

    Raises:
        RuntimeError: without a C++ compiler; or setup.py's own errors, with the compiler's message.
    """
    rules = _setup()
    rules.OBJECTS = Path("build", "fuzz", "objects")
    rules.ISA_FLAGS = {"portable": []}
    replaced = {"-O3": "-O1", "-DGLSK_X86=1": "-DGLSK_X86=0"}  # the latter: dispatch knows of the portable code alone
    rules.CXX_FLAGS = [replaced.get(flag, flag) for flag in rules.CXX_FLAGS if flag != "-DNDEBUG"]
    rules.CXX_FLAGS += ["-g", *SANITIZERS]
    os.environ.setdefault("MAX_JOBS", "1")
    cxx = rules.find_cxx()
    if cxx is None:
        raise RuntimeError("no C++ compiler was found; leave the sanitized targets out with --no-sanitizers")
    openmp = rules.openmp_flags(cxx)
    units = rules.cpu_units(cxx, openmp)
    rules.compile_all(units)
    newest = max((ROOT / unit.obj).stat().st_mtime_ns for unit in units)
    if not TARGET.exists() or TARGET.stat().st_mtime_ns < newest:
        link = [*cxx, "-shared", *openmp, *SANITIZERS, *(str(unit.obj) for unit in units), "-o", str(TARGET)]
        rules.run([*link, *shlex.split(os.environ.get("LDFLAGS", ""))], rules.LinkError)
    return TARGET


def runtime() -> tuple[str, str]:
    """The compiler's AddressSanitizer runtime and its C++ standard library, which a process has to load first."""
    cxx = _setup().find_cxx()
    if cxx is None:
        raise RuntimeError("no C++ compiler was found")
    asan = _library(cxx, "libasan.so", f"libclang_rt.asan-{os.uname().machine}.so")
    return asan, _library(cxx, "libstdc++.so.6", "libc++.so.1")


def _library(cxx: list[str], *names: str) -> str:
    for name in names:
        command = [*cxx, f"-print-file-name={name}"]
        path = Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
        if path.is_absolute():
            return str(path.resolve())
    raise RuntimeError(f"{cxx[0]} has none of {', '.join(names)}; leave the sanitizers out with --no-sanitizers")


def _setup() -> ModuleType:
    spec = importlib.util.spec_from_file_location("glsk_setup", ROOT / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    print(build())
