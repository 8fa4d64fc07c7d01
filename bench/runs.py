"""Training runs as cells of a table or points of a curve: run once, resumed if stopped, read from their files."""

import json
from pathlib import Path
from typing import Any

from glsk.analysis.runs import Run, read_runs
from glsk.training.config import Config
from glsk.training.loop import train


def run(config: Config, out: Path) -> dict[str, Any]:
    """The results of ``config`` in the folder ``out``: read if it has ended, else trained from where it stands."""
    if not (out / "results.json").exists():
        train(config, out, resume=(out / "config.json").exists())
    return json.loads((out / "results.json").read_text())


def on_cpu_time(out: Path) -> Run:
    """A run as it is on disk, its seconds CPU time of all threads in its steps."""
    (found,) = read_runs([out], clock="cpu")
    return found
