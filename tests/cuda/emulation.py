"""Builds csrc/cuda as plain C++ (emulate.h) and puts it in the place of the ``cuda`` backend, for CPU tensors."""

import ctypes
import hashlib
import importlib.util
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import glsk
from glsk import backends, ops

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
SOURCES = [*sorted((ROOT / "csrc" / "cuda").iterdir()), HERE / "emulate.h", HERE / "emulate.cpp"]
FLAGS = ["-std=c++17", "-O1", "-fPIC", "-DGLSK_EMULATE", "-Wall", "-Wextra", "-Wno-unknown-pragmas"]

SHARED_LIMIT = 227 << 10

PARTS = ("views", "select", "workspace", "forward", "backward")
"""Of the ``cuda`` backend, which hold on to the extension."""


class Emulation:
    """The emulated extension and what tests may switch in it."""

    def __init__(self, path: Path) -> None:
        self.path, self._switch = path, ctypes.CDLL(str(path)).glsk_emulate
        self.set()

    def set(self, reverse: bool = False, shared_limit: int = SHARED_LIMIT, multiprocessors: int = 2) -> None:
        """Order of the threads between barriers; shared memory of a thread block in bytes; size of the device."""
        self._switch(int(reverse), shared_limit, multiprocessors)


def missing() -> str | None:
    """Why the emulation cannot be built here, or None."""
    if shutil.which("g++") is None:
        return "g++ is not there"
    if importlib.util.find_spec("pybind11") is None:
        return "pybind11 is not there"
    return None


def build() -> Path:
    """The extension compiled for the host; built once for a state of the sources."""
    import pybind11

    digest = hashlib.sha256(sys.version.encode() + " ".join(FLAGS).encode())
    for source in SOURCES:
        digest.update(source.read_bytes())
    target = ROOT / "build" / f"emulated-{digest.hexdigest()[:16]}" / "_CUDA.so"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    includes = [f"-I{path}" for path in (ROOT / "csrc", HERE, sysconfig.get_path("include"), pybind11.get_include())]
    units = [source for source in SOURCES if source.suffix in (".cu", ".cpp")]
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:

        def compile_unit(source: Path) -> str:
            made = str(Path(folder, source.stem + ".o"))
            _run(["g++", *FLAGS, *includes, "-x", "c++", "-c", str(source), "-o", made])
            return made

        with ThreadPoolExecutor(2) as pool:
            objects = list(pool.map(compile_unit, units))
        linked = Path(folder, "linked.so")
        _run(["g++", "-shared", *objects, "-o", str(linked)])
        linked.rename(target)
    return target


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"


@contextmanager
def installed(path: Path) -> Iterator[tuple[ModuleType, Emulation]]:
    """Within it, backend="cuda" runs the emulated kernels on CPU tensors; afterwards everything is as before."""
    names = ["glsk._CUDA", *(f"glsk.backends.cuda_{part}" for part in PARTS)]
    modules = {name: sys.modules.pop(name, None) for name in names}
    attributes = {name: vars(_owner(name)).pop(name.rpartition(".")[2], None) for name in names}
    registered = {op.name: (dict(op._implementations), dict(op._backwards)) for op in ops.ALL}
    entry = backends._BACKENDS["cuda"]
    try:
        # Under a name of its own: pybind11 would hand out a module of that name which is already loaded, the real one.
        spec = importlib.util.spec_from_file_location("emulated._CUDA", path)
        native = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(native)
        sys.modules["glsk._CUDA"] = glsk._CUDA = native
        views, select, workspace, launcher, _ = (importlib.import_module(f"glsk.backends.cuda_{p}") for p in PARTS)
        views.where = lambda tensor: (0, 0)
        select.for_triton = lambda *_: False
        workspace._multiprocessors = lambda _: 2
        backends._BACKENDS["cuda"] = replace(entry, why_missing=lambda: None, devices=("cpu",))
        _forget()
        yield launcher, Emulation(path)
    finally:
        backends._BACKENDS["cuda"] = entry
        _forget()
        for op in ops.ALL:
            for now, before in zip((op._implementations, op._backwards), registered[op.name], strict=True):
                now.clear()
                now.update(before)
        for name in names:
            sys.modules.pop(name, None)
            if modules[name] is not None:
                sys.modules[name] = modules[name]
        for name, value in attributes.items():
            vars(_owner(name)).pop(name.rpartition(".")[2], None)
            if value is not None:
                setattr(_owner(name), name.rpartition(".")[2], value)


def _owner(name: str) -> ModuleType:
    """The package that a module is an attribute of."""
    return sys.modules[name.rpartition(".")[0]]


def _forget() -> None:
    backends.why_missing.cache_clear()
    backends.resolve.cache_clear()
