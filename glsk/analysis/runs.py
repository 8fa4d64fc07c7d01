"""Training runs as they are on disk, those that differ by their seed alone brought together."""

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glsk.errors import DataError

_SEED = re.compile(r"seed-\d+")

CLOCKS = {"wall": "step_s", "cpu": "cpu_s"}
"""Clock -> the time of a step in metrics.jsonl: that on the wall, or CPU time of all threads and actors."""


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        folder: of the run.
        label: what runs that differ only by their seed share: the name of their folder.
        records: of metrics.jsonl, with ``seconds``, the time of training steps up to each.
        clock: what that time is counted by, of :data:`CLOCKS`.
    """

    folder: Path
    label: str
    records: list[dict[str, Any]]
    clock: str = "wall"

    @property
    def seconds(self) -> float:
        """The time of all its steps."""
        return float(self.records[-1]["seconds"])

    def series(self, quantity: str) -> tuple[list[int], list[float], list[float]]:
        """Steps, seconds and values of a quantity, wherever it was recorded."""
        found = [(r["step"], r["seconds"], float(r[quantity])) for r in self.records if _is_number(r.get(quantity))]
        steps, seconds, values = zip(*found, strict=True) if found else ((), (), ())
        return list(steps), list(seconds), list(values)

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        """The records of evaluations, in order."""
        return [record for record in self.records if record["stage"] == "evaluation"]

    @property
    def quantities(self) -> list[str]:
        """Loss, and the accuracies that were measured."""
        measured = (name for record in self.evaluations for name in record if name not in ("step", "seconds"))
        return [name for name in dict.fromkeys(("loss", *measured)) if self.series(name)[0]]


def read_runs(folders: Iterable[Path], clock: str = "wall") -> list[Run]:
    """The runs in some folders; a folder of ``seed-<n>`` is all of those, with one label.

    Args:
        folders: of runs, or of series of them.
        clock: "wall", or "cpu": what seconds are counted by.

    Raises:
        ValueError: another clock.
        DataError: naming a folder that holds no run, or a damaged metrics.jsonl.
    """
    if clock not in CLOCKS:
        raise ValueError(f"--clock: unknown {clock!r}; known: {', '.join(CLOCKS)}")
    found: list[tuple[Path, Path]] = []
    for folder in folders:
        seeds = sorted(path for path in folder.glob("seed-*") if _SEED.fullmatch(path.name))
        if (folder / "metrics.jsonl").is_file():
            shared = folder.resolve().parent if _SEED.fullmatch(folder.resolve().name) else folder
            found.append((folder, shared))
        elif seeds:
            found += [(path, folder) for path in seeds]
        else:
            raise DataError(f"{folder}: holds no run (no metrics.jsonl, no seed-<n>)")
    names = _short_names({shared.resolve() for _, shared in found})
    return [
        Run(folder, names[shared.resolve()], _read(folder / "metrics.jsonl", CLOCKS[clock]), clock)
        for folder, shared in found
    ]


def _read(path: Path, time: str) -> list[dict[str, Any]]:
    from glsk.training.metrics import read_metrics

    try:
        records = read_metrics(path)
    except ValueError as error:
        raise DataError(str(error)) from error
    if not records:
        raise DataError(f"{path}: holds no record")
    if not any(time in record for record in records) and any(other in r for other in CLOCKS.values() for r in records):
        raise DataError(f"{path}: no step has {time}: choose another clock")
    spent = itertools.accumulate(record.get(time, 0.0) for record in records)
    return [{**record, "seconds": seconds} for record, seconds in zip(records, spent, strict=True)]


def _short_names(paths: set[Path]) -> dict[Path, str]:
    """The shortest ends of the paths that tell them apart."""
    for depth in range(1, max((len(path.parts) for path in paths), default=1) + 1):
        names = {path: "/".join(path.parts[-depth:]) for path in paths}
        if len(set(names.values())) == len(paths):
            return names
    return {path: str(path) for path in paths}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
