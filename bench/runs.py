"""Training runs as cells of a table or points of a curve: run once, resumed if stopped, read from their files."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glsk.training.config import Config
from glsk.training.loop import train
from glsk.training.metrics import read_metrics


@dataclass(frozen=True)
class Curve:
    """Evaluations of one run as they were made while it trained.

    Attributes:
        cpu_seconds: CPU time of all threads spent in steps until then; evaluations themselves are left out.
        steps: of the run.
        natural, certified: shares of the test images.
    """

    cpu_seconds: list[float]
    steps: list[int]
    natural: list[float]
    certified: list[float]


def run(config: Config, out: Path) -> dict[str, Any]:
    """The results of ``config`` in the folder ``out``: read if it has ended, else trained from where it stands."""
    if not (out / "results.json").exists():
        train(config, out, resume=(out / "config.json").exists())
    return json.loads((out / "results.json").read_text())


def cpu_seconds(out: Path) -> float:
    """CPU time of all threads in the steps of a run."""
    return sum(line.get("cpu_s", 0.0) for line in read_metrics(out / "metrics.jsonl"))


def curve(out: Path, method: str = "CROWN") -> Curve:
    """The evaluations of a run, in order."""
    found, spent = Curve([], [], [], []), 0.0
    for line in read_metrics(out / "metrics.jsonl"):
        spent += line.get("cpu_s", 0.0)
        if line["stage"] == "evaluation":
            found.cpu_seconds.append(spent)
            found.steps.append(line["step"])
            found.natural.append(line["natural"])
            found.certified.append(line[f"certified {method}"])
    return found
