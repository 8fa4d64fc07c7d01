"""Open subproblems: a stack of batches, whose bottom goes to disk where memory is short."""

import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor


@dataclass(frozen=True)
class Subproblems:
    """N of them, bounded and still open.

    Attributes:
        goal: which goal, int64 [N].
        splits: int8 [N, U], +1 active, -1 inactive, 0 free.
        duals: multipliers and slopes that bounded it, float16 [N, S, U]: where its children's ascent starts.
        units: units to split, best first, int32 [N, k]; -1 where there is none.
        margin: how far the best row's bound is from proving it, float32 [N].
    """

    goal: Tensor
    splits: Tensor
    duals: Tensor
    units: Tensor
    margin: Tensor

    def __len__(self) -> int:
        return len(self.goal)

    def __getitem__(self, which: Tensor | slice) -> "Subproblems":
        return Subproblems(*(getattr(self, field.name)[which] for field in fields(self)))

    @property
    def bytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in (getattr(self, field.name) for field in fields(self)))

    @staticmethod
    def join(parts: Iterable["Subproblems"]) -> "Subproblems":
        parts = list(parts)
        return Subproblems(*(torch.cat([getattr(p, field.name) for p in parts]) for field in fields(Subproblems)))


class Stack:
    """Last in, first out: depth first, so that few subproblems are open at a time.

    Args:
        memory_limit: bytes that may be held; what is over it, oldest first, waits on disk.
        folder: where; None for a temporary folder, made when needed.
    """

    def __init__(self, memory_limit: int, folder: Path | None = None) -> None:
        self.limit, self.parent = memory_limit, folder
        self._batches: list[Subproblems | tuple[Path, int]] = []
        self._held = 0
        self._folder: Path | None = None
        self._count = 0

    def __len__(self) -> int:
        return sum(len(batch) if isinstance(batch, Subproblems) else batch[1] for batch in self._batches)

    def push(self, batch: Subproblems) -> None:
        """Put a batch on top; its last subproblem is the first to be taken."""
        if not len(batch):
            return
        self._batches.append(batch)
        self._held += batch.bytes
        for place in range(len(self._batches) - 1):
            if self._held <= self.limit:
                break
            self._spill(place)

    def pop(self, count: int) -> Subproblems | None:
        """At most ``count`` from the top; None where nothing is left."""
        taken: list[Subproblems] = []
        while count > 0 and self._batches:
            batch = self._load(self._batches.pop())
            if len(batch) > count:
                rest = batch[: len(batch) - count]
                batch = batch[len(batch) - count :]
                rest = Subproblems(*(t.clone() for t in (rest.goal, rest.splits, rest.duals, rest.units, rest.margin)))
                self._batches.append(rest)
                self._held += rest.bytes
            taken.append(batch)
            count -= len(batch)
        return Subproblems.join(taken) if taken else None

    def close(self) -> None:
        """Forget everything, on disk too."""
        self._batches, self._held = [], 0
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _spill(self, place: int) -> None:
        batch = self._batches[place]
        if not isinstance(batch, Subproblems):
            return
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="glsk-subproblems-", dir=self.parent))
        path = self._folder / f"{self._count}.pt"
        self._count += 1
        torch.save([getattr(batch, field.name) for field in fields(batch)], path)
        self._batches[place] = path, len(batch)
        self._held -= batch.bytes

    def _load(self, batch: Subproblems | tuple[Path, int]) -> Subproblems:
        if isinstance(batch, Subproblems):
            self._held -= batch.bytes
            return batch
        found = Subproblems(*torch.load(batch[0], weights_only=True))
        batch[0].unlink()
        return found
