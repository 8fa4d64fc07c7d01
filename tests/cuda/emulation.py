"""Builds csrc/cuda as plain C++ (emulate.h) and puts it in the place of the ``cuda`` backend, for CPU tensors."""

import ctypes
import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import glsk
from glsk import backends, ops

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
KERNELS = sorted((ROOT / "csrc" / "cuda").glob("*.cu"))
SOURCES = [*sorted((ROOT / "csrc" / "cuda").iterdir()), *sorted(HERE.glob("emulate*.*"))]
FLAGS = ["-std=c++17", "-g1", "-fPIC", "-DGLSK_EMULATE", "-Wall", "-Wextra", "-Wno-unknown-pragmas"]
RUNTIME, RUNTIME_FLAGS = ("emulate.cpp", "emulate_warp.cpp", "emulate_fp16.cpp"), ["-O2"]

SHARED_LIMIT = 227 << 10

WATCHED = ["-fsanitize=thread,alignment", "-fsanitize-recover=alignment", "--param=tsan-instrument-func-entry-exit=0"]
"""The compiler's part of ThreadSanitizer: calls at every access, to emulate_hooks.cpp or to its own library."""


@dataclass(frozen=True)
class Variant:
    """How the emulator is built: flags of the kernels and of the link, who observes, and flags of all but kernels."""

    name: str
    kernels: tuple[str, ...]
    link: tuple[str, ...]
    observer: tuple[str, ...]
    runtime: tuple[str, ...] = ()


RACES = Variant("races", ("-O1", *WATCHED), (), ("emulate_races.cpp", "emulate_regions.cpp", "emulate_hooks.cpp"))

PARTS = ("views", "select", "workspace", "forward", "backward")
"""Of the ``cuda`` backend, which hold on to the extension."""


class Emulation:
    """The emulated extension and what tests may switch in it."""

    def __init__(self, path: Path) -> None:
        self.path, self._switch = path, ctypes.CDLL(str(path)).glsk_emulate
        self.set()

    def set(
        self, order: str = "forward", seed: int = 0, shared_limit: int = SHARED_LIMIT, multiprocessors: int = 2
    ) -> None:
        """Order of the threads between barriers; shared memory of a thread block in bytes; size of the device.

        Accesses to memory are looked at if GLSK_EMULATE_WATCH is 1: many times slower.
        """
        watch = int(os.environ.get("GLSK_EMULATE_WATCH") == "1")
        self._switch(("forward", "backward", "random").index(order), seed, shared_limit, multiprocessors, watch)


def missing() -> str | None:
    """Why the emulation cannot be built here, or None."""
    if shutil.which("g++") is None:
        return "g++ is not there"
    if importlib.util.find_spec("pybind11") is None:
        return "pybind11 is not there"
    return None


def build() -> Path:
    """The extension compiled for the host; built once for a state of the sources."""
    return built(RACES, "_CUDA.so", [ROOT / "csrc" / "cuda" / "bindings.cpp"], ["-shared"])


def program(variant: Variant = RACES, sources: Iterable[Path] = KERNELS, only: Iterable[str] = ()) -> Path:
    """The small calls of emulated_cases.cpp as a program (emulated_main.cpp), of these kernels.

    With ``only`` some of their names it can make no calls of others, and is compiled in less time.
    """
    more = [HERE / "emulated_cases.cpp", HERE / "emulated_main.cpp"]
    if not only:
        return built(variant, "cases", more, [], sources)
    few = [source for source in sources if source.name in only]
    name = "-".join(["cases", *(source.stem for source in few)])
    return built(variant, name, [*more, HERE / "emulated_few.cpp"], [], few)


def built(variant: Variant, name: str, more: list[Path], link: list[str], kernels: Iterable[Path] = KERNELS) -> Path:
    """A target of the variant; its objects stay beside it, for other targets. Both appear whole or not at all."""
    import pybind11

    digest = hashlib.sha256(repr((sys.version, FLAGS, RUNTIME_FLAGS, variant)).encode())
    for source in SOURCES:
        digest.update(source.read_bytes())
    folder = ROOT / "build" / f"emulated-{variant.name}-{digest.hexdigest()[:16]}"
    kernels = list(kernels)
    changed = [kernel for kernel in kernels if kernel not in KERNELS]
    target = (changed[0].parent if changed else folder) / name
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    includes = [
        f"-I{path}"
        for path in (ROOT / "csrc", ROOT / "csrc" / "cuda", HERE, sysconfig.get_path("include"), pybind11.get_include())
    ]

    def compile_unit(source: Path) -> str:
        made = (source.parent if source in changed else folder) / f"{source.stem}.o"
        if not made.exists():
            with tempfile.NamedTemporaryFile(dir=made.parent, suffix=".o", delete=False) as unfinished:
                flags = variant.kernels if source.suffix == ".cu" else (*RUNTIME_FLAGS, *variant.runtime)
                command = ["g++", *FLAGS, *flags, f"-I{source.parent}", *includes]
                _run([*command, "-x", "c++", "-c", str(source), "-o", unfinished.name])
            Path(unfinished.name).rename(made)
        return str(made)

    runtime = [HERE / part for part in (*RUNTIME, *variant.observer)]
    with (folder / "lock").open("w") as lock, ThreadPoolExecutor(2) as pool:
        fcntl.flock(lock, fcntl.LOCK_EX)  # what one process compiles others wait for
        objects = list(pool.map(compile_unit, [*kernels, *runtime, *more]))
    with tempfile.NamedTemporaryFile(dir=target.parent, suffix=".linked", delete=False) as unfinished:
        _run(["g++", *variant.link, *link, *objects, "-ldl", "-o", unfinished.name])
    Path(unfinished.name).rename(target)
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
