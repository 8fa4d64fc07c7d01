"""Where a run stands, and its checkpoint."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from glsk.data import Dataset
from glsk.errors import CheckpointError, GlskError
from glsk.estimators import Estimator
from glsk.training.checkpoint import Checkpoint
from glsk.training.config import Config
from glsk.training.weights import Description
from glsk.verify import Evaluation


@dataclass
class Position:
    """Where a run stands.

    Attributes:
        phase: how many phases are done.
        index: steps done of the next one.
        offset: steps of the phases that are done.
        evaluated: whether the evaluation that follows the last step, if any does, is behind the run.
        results: phase name -> evaluation of the weights after it.
    """

    phase: int = 0
    index: int = 0
    offset: int = 0
    evaluated: bool = True
    results: dict[str, Evaluation] = field(default_factory=dict)

    @property
    def step(self) -> int:
        """Steps done over all phases."""
        return self.offset + self.index


def pack(
    position: Position, config: Config, net: nn.Module, description: Description, data: str, estimator: Estimator | None
) -> Checkpoint:
    """The checkpoint of a run on ``data`` (a fingerprint) at ``position``: a phase's start if ``estimator`` is None."""
    tensors: dict[str, Tensor] = {"rng/torch": torch.get_rng_state()}
    inside: dict[str, Any] = {}
    if estimator is not None:
        estimator.export()
        found, inside = estimator.state()
        tensors.update({f"estimator/{name}": value for name, value in found.items()})
    tensors.update({f"weights/{name}": value for name, value in net.state_dict().items()})
    meta = {
        "config": config.to_dict(),
        "network": vars(description),
        "data": data,
        "phase": position.phase,
        "index": position.index,
        "evaluated": position.evaluated,
        "estimator": inside,
        "results": {name: result.to_dict() for name, result in position.results.items()},
    }
    return Checkpoint(position.step, tensors, meta)


def unpack(found: Checkpoint, net: nn.Module, phases: int) -> Position:
    """The position of a checkpoint, its weights in ``net`` and its random state in PyTorch; not yet the estimator's.

    Raises:
        CheckpointError: naming the file, if it does not fit a run of so many phases.
    """
    with fitting(found):
        meta = found.meta
        phase, index, evaluated = meta["phase"], meta["index"], meta.get("evaluated", True)
        if not (type(phase) is int and type(index) is int and 0 <= phase <= phases and 0 <= index <= found.step):
            raise ValueError(f"phase {phase!r:.50}, step {index!r:.50} of it")
        if not isinstance(meta["results"], dict):
            raise TypeError(f"results {meta['results']!r:.50}")
        results = {name: Evaluation(**values) for name, values in meta["results"].items()}
        net.load_state_dict(found.group("weights"))
        torch.set_rng_state(found.tensors["rng/torch"])
        return Position(phase, index, found.step - index, bool(evaluated), results)


@contextmanager
def fitting(found: Checkpoint) -> Iterator[None]:
    """Content that is whole but not what the block expects becomes a CheckpointError naming the file."""
    try:
        yield
    except (LookupError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        if isinstance(error, GlskError | torch.OutOfMemoryError):
            raise
        reason = (str(error).splitlines() or [""])[-1].strip()
        raise CheckpointError(f"{found.path}: does not fit this run ({type(error).__name__}: {reason})") from error


def fingerprint(dataset: Dataset) -> str:
    """Tells data sets apart by their training part: shape, sum, labels."""
    digest = hashlib.sha256(repr((list(dataset.x_train.shape), float(dataset.x_train.double().sum()))).encode())
    digest.update(dataset.y_train.numpy().tobytes())
    return digest.hexdigest()
