"""What lies in a run's folder, and the settings it was started with."""

import json
from pathlib import Path

from glsk.arguments import printable
from glsk.errors import CheckpointError
from glsk.training import atomic, checkpoint
from glsk.training.checkpoint import Checkpoint
from glsk.training.config import ENGINE, Config, flat

WEIGHTS = "weights.safetensors"
CHECKPOINTS = "checkpoints"
CONFIG = "config.json"
RESULTS = "results.json"


def read_config(out: Path) -> Config:
    """The settings of the run in ``out``. Raises CheckpointError naming the file if it is missing or damaged."""
    path = out / CONFIG
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file, so there is no run to resume in this folder") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged, no run to resume ({_reason(error)})") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: damaged, no run to resume (expected settings, got {values!r:.50})")
    missing = [name for name in Config.__dataclass_fields__ if name not in ENGINE and name not in values]
    if missing:
        raise CheckpointError(f"{path}: damaged, no run to resume (it lacks {', '.join(missing)})")
    try:
        return Config.from_dict(values)
    except ValueError as error:
        raise CheckpointError(f"{path}: damaged, no run to resume ({printable(error)})") from error


def write_config(out: Path, config: Config) -> None:
    """Raises OSError naming the file."""
    atomic.write_text(out / CONFIG, json.dumps(config.to_dict(), indent=1) + "\n")


def check_same(config: Config, saved: dict[str, object]) -> None:
    """Raises ValueError if ``config`` would make another run than the one that was started with ``saved``."""
    now, before = flat(config.to_dict()), flat(saved)
    different = [name for name in {**now, **before} if name not in ENGINE and before.get(name) != now.get(name)]
    if different:
        changes = ", ".join(f"{name} ({before.get(name)} -> {now.get(name)})" for name in different)
        raise ValueError(f"--resume: these settings cannot change within a run: {changes}")


def to_resume(out: Path, config: Config) -> Checkpoint | None:
    """The newest good checkpoint of the run in ``out``; None if it was stopped before the first.

    Raises:
        CheckpointError: there is no run, or all its checkpoints are damaged.
        ValueError: ``config`` would make another run.
    """
    folder = out / CHECKPOINTS
    if checkpoint.exists(folder):
        return checkpoint.latest(folder)
    if not (out / CONFIG).exists():
        raise CheckpointError(f"{out}: holds no checkpoint and no {CONFIG}: there is no run to resume")
    check_same(config, read_config(out).to_dict())
    return None


def _reason(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)
