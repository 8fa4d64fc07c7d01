"""Runs a target of files: guided by coverage where atheris is installed, else by seeded mutations alone."""

import importlib.util
import resource
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import torch

import glsk
from fuzz import targets
from fuzz.mutate import mutations
from fuzz.scratch import MAX_INPUT

MEMORY = 1 << 30
"""Bytes that a reader may take, beyond what the process has once everything is imported."""

SLOWEST = 30
"""Seconds that one input may take."""


def guided() -> bool:
    """Whether coverage can guide the mutations here."""
    return importlib.util.find_spec("atheris") is not None


def run(name: str, seconds: float, seed: int, findings: Path, corpus: Path) -> int:
    """How many inputs were tried; with atheris the process ends here, by a status other than 0 on a finding."""
    if guided():
        _guided(name, seconds, seed, findings, corpus)
    target, saved = targets.load(name), findings / f"{name}-{seed}.bin"
    limit_memory()
    tried, end = 0, time.monotonic() + seconds
    for data in mutations(target.seeds(), seed):
        if time.monotonic() > end:
            break
        saved.write_bytes(data)
        target.check(data)
        tried += 1
    saved.unlink(missing_ok=True)
    return tried


def _guided(name: str, seconds: float, seed: int, findings: Path, corpus: Path) -> NoReturn:
    import atheris

    # What is imported by now is not instrumented: of glsk, the readers are.
    assert not any(module.startswith(("glsk.data", "glsk.training")) for module in sys.modules), glsk.__name__
    with atheris.instrument_imports(include=["glsk"]):
        target: ModuleType = targets.load(name)
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(target.seeds()):
        (corpus / f"seed-{number}").write_bytes(data)
    limit_memory()
    options = {
        "max_total_time": max(1, round(seconds)),
        "seed": seed % 2**31 or 1,
        "artifact_prefix": f"{findings}/{name}-",
        "max_len": MAX_INPUT,
        "timeout": SLOWEST,
        "rss_limit_mb": 0,  # limit_memory() is stricter, and leaves a traceback
        "verbosity": 0,
        "print_final_stats": 1,
    }
    atheris.Setup([sys.argv[0], *(f"-{key}={value}" for key, value in options.items()), str(corpus)], target.check)
    atheris.Fuzz()
    raise AssertionError("atheris ends the process")


def replay(name: str, path: Path) -> None:
    """Check one saved input."""
    target = targets.load(name)
    limit_memory()
    target.check(path.read_bytes())


def limit_memory() -> None:
    """From here on, more than :data:`MEMORY` is a MemoryError, which no reader documents."""
    torch.set_num_threads(1)
    if sys.platform != "linux":
        return
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
