"""The steps of a check on a GPU, in order: what each runs, what it needs, and how long it may take."""

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SANITIZERS = ("memcheck", "racecheck", "synccheck", "initcheck")


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        name: by which it is asked for.
        command: given the folder for results.
        seconds: its limit.
        tool: a program that it needs; without it the step is skipped.
        environment: added to the caller's.
        builds: whether it makes what the other steps need, and is done first where that is missing.
    """

    name: str
    command: Callable[[Path], list[str]]
    seconds: float
    tool: str | None = None
    environment: tuple[tuple[str, str], ...] = ()
    builds: bool = False

    def missing(self) -> str | None:
        """Why it cannot run here, or None."""
        return f"{self.tool} is not there" if self.tool and shutil.which(self.tool) is None else None


def _module(name: str, *arguments: str) -> Callable[[Path], list[str]]:
    """A module; {out} among its arguments stands for the folder."""
    return lambda out: [sys.executable, "-m", name, *(argument.format(out=out) for argument in arguments)]


def _sanitizer(tool: str) -> Step:
    # Without PyTorch's caching every tensor is an allocation of its own, whose ends memcheck knows.
    case = [sys.executable, "-m", "bench.gpu.small_case"]
    options = ["--tool", tool, "--error-exitcode", "9", "--kernel-regex", "kns=glsk"]
    return Step(
        tool, lambda out: ["compute-sanitizer", *options, *case], 240, "compute-sanitizer",
        (("PYTORCH_NO_CUDA_MEMORY_CACHING", "1"),),
    )  # fmt: skip


STEPS = (
    Step("build", _module("bench.gpu.build"), 400, "nvcc", builds=True),
    Step("first", _module("bench.gpu.first", "--out", "{out}/first.json"), 60),
    Step("constants", _module("bench.gpu.constants", "--out", "{out}/constants.json"), 90, "nvcc"),
    Step("passes", _module("bench.passes", "--device", "cuda", "--out", "{out}/passes.json"), 180),
    Step("epochs", _module("bench.gpu.epochs", "--out", "{out}/epochs.json"), 240),
    Step("tests", _module("pytest", "-q", "-m", "gpu", "tests"), 540, environment=(("GLSK_REQUIRE_CUDA", "1"),)),
    *(_sanitizer(tool) for tool in SANITIZERS),
    Step("share", _module("bench.step_share", "--device", "cuda", "--steps", "20", "--out", "{out}/share.json"), 180),
    Step(
        "train",
        _module(
            "glsk.cli", "train", "--preset", "mnist-0.1-cnn3-deeppoly", "--device", "cuda", "--dataset", "mnist-5k",
            "--epochs", "2", "--warm-epochs", "2", "--set", "eval_limit=500", "--out", "{out}/run",
        ),
        300,
    ),
    Step("ops", _module("pytest", "-q", "bench", "--benchmark-json={out}/ops.json"), 240),
    Step("cost", _module("bench.cost", "--constants", "{out}/constants.json"), 120),
    Step("compare", _module("bench.compare", "--device", "cuda", "--out", "{out}/compare.json"), 400),
)  # fmt: skip
