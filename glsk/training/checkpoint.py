"""Checkpoints: one safetensors file each, with a digest, written atomically; the last two are kept."""

import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from glsk.arguments import printable
from glsk.errors import CheckpointError
from glsk.training.atomic import write_bytes

FORMAT = 2
KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """A run after ``step`` steps.

    Attributes:
        step: steps done over all phases.
        tensors: ``weights/<name>``, ``estimator/<name>`` and ``rng/torch``.
        meta: what JSON holds: settings, phase, results so far.
        skipped: damaged checkpoints that were newer than this one, each with the reason.
        path: the file it was read from.
    """

    step: int
    tensors: dict[str, Tensor]
    meta: dict[str, Any]
    skipped: list[str] = field(default_factory=list)
    path: Path | None = None

    def group(self, prefix: str) -> dict[str, Tensor]:
        """The tensors called ``prefix/...``, without the prefix."""
        return {n.removeprefix(f"{prefix}/"): v for n, v in self.tensors.items() if n.startswith(f"{prefix}/")}


def write(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write ``step-<n>.safetensors`` and remove all but the newest :data:`KEPT`. Raises OSError (disk full, ...)."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in checkpoint.tensors.items()}
    meta = json.dumps({"format": FORMAT, "step": checkpoint.step, **checkpoint.meta})
    path = folder / f"step-{checkpoint.step:09d}.safetensors"
    write_bytes(path, save(tensors, {"glsk_checkpoint": meta, "sha256": _digest(tensors, meta)}))
    for old in _paths(folder)[:-KEPT]:
        if not old.is_dir():
            old.unlink(missing_ok=True)
    return path


def read(path: Path) -> Checkpoint:
    """A checkpoint, verified.

    Raises:
        CheckpointError: naming the file, if it is missing, truncated, altered, or no checkpoint of this format.
    """
    tensors, metadata = read_safetensors(path)
    if "glsk_checkpoint" not in metadata:
        raise CheckpointError(f"{path}: not a checkpoint of glsk")
    if _digest(tensors, metadata["glsk_checkpoint"]) != metadata.get("sha256"):
        raise CheckpointError(f"{path}: corrupt (its content does not match its digest)")
    try:
        meta = json.loads(metadata["glsk_checkpoint"])
        version, step = meta.pop("format"), meta.pop("step")
    except (ValueError, RecursionError, AttributeError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path}: not a checkpoint of glsk (it does not say what it holds)") from error
    if version != FORMAT:
        raise CheckpointError(f"{path}: written by another version of glsk")
    if type(step) is not int or step < 0:
        raise CheckpointError(f"{path}: not a checkpoint of glsk (its step is {step!r:.50})")
    return Checkpoint(step, tensors, meta, path=path)


def latest(folder: Path) -> Checkpoint:
    """The newest good checkpoint of ``folder``; damaged ones are passed over and named in ``skipped``.

    Raises:
        CheckpointError: if there is none, or none is good.
    """
    skipped: list[str] = []
    for path in reversed(_paths(folder)):
        try:
            found = read(path)
        except CheckpointError as error:
            skipped.append(str(error))
        else:
            return replace(found, skipped=skipped)
    raise CheckpointError("; ".join(skipped) or f"{folder}: holds no checkpoint to resume from")


def exists(folder: Path) -> bool:
    """Whether ``folder`` holds any checkpoint, good or not."""
    return bool(_paths(folder))


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of any safetensors file. Raises CheckpointError naming it."""
    if not path.is_file():
        raise CheckpointError(f"{path}: {'not a file' if path.exists() else 'no such file'}")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: truncated, corrupt or not a safetensors file ({printable(error)})") from error


def _paths(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.safetensors"))


def _digest(tensors: dict[str, Tensor], meta: str) -> str:
    digest = hashlib.sha256(meta.encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"\n{name} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.reshape(-1).numpy().tobytes())
    return digest.hexdigest()
