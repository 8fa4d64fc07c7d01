"""A stack of batches of open subproblems, whose bottom goes to disk where memory is short."""

import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Generic, Self, TypeVar

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """N of something: every field is a tensor whose first size is N."""

    @property
    def tensors(self) -> list[Tensor]:
        return [getattr(self, field.name) for field in fields(self)]

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __getitem__(self, which: Tensor | slice) -> Self:
        return type(self)(*(t[which] for t in self.tensors))

    @property
    def bytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in self.tensors)

    @classmethod
    def join(cls, parts: Iterable[Self]) -> Self:
        return cls(*map(torch.cat, zip(*(part.tensors for part in parts), strict=True)))


B = TypeVar("B", bound=Batch)


@dataclass(frozen=True)
class _Spilled(Generic[B]):
    """A batch that is on disk."""

    kind: type[B]
    path: Path
    length: int

    def __len__(self) -> int:
        return self.length


class Stack(Generic[B]):
    """Last in, first out: depth first, so that few subproblems are open at a time.

    Args:
        memory_limit: bytes that may be held; what is over it, oldest first, waits on disk.
        folder: where; None for a temporary folder, made when needed.
    """

    def __init__(self, memory_limit: int, folder: Path | None = None) -> None:
        self.limit, self.parent = memory_limit, folder
        self._batches: list[B | _Spilled[B]] = []
        self._held = 0
        self._folder: Path | None = None
        self._count = 0

    def __len__(self) -> int:
        return sum(len(batch) for batch in self._batches)

    def push(self, batch: B) -> None:
        """Put a batch on top; its last subproblem is the first to be taken."""
        if not len(batch):
            return
        self._batches.append(batch)
        self._held += batch.bytes
        for place in range(len(self._batches) - 1):
            if self._held <= self.limit:
                break
            self._spill(place)

    def pop(self, count: int) -> B | None:
        """At most ``count`` from the top; None where nothing is left."""
        taken: list[B] = []
        while count > 0 and self._batches:
            batch = self._load(self._batches.pop())
            if len(batch) > count:
                rest = batch[: len(batch) - count]
                batch = batch[len(batch) - count :]
                rest = type(rest)(*(t.clone() for t in rest.tensors))
                self._batches.append(rest)
                self._held += rest.bytes
            taken.append(batch)
            count -= len(batch)
        return type(taken[0]).join(taken) if taken else None

    def close(self) -> None:
        """Forget everything, on disk too."""
        self._batches, self._held = [], 0
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _spill(self, place: int) -> None:
        batch = self._batches[place]
        if isinstance(batch, _Spilled):
            return
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="glsk-subproblems-", dir=self.parent))
        path = self._folder / f"{self._count}.pt"
        self._count += 1
        torch.save(batch.tensors, path)
        self._batches[place] = _Spilled(type(batch), path, len(batch))
        self._held -= batch.bytes

    def _load(self, batch: "B | _Spilled[B]") -> B:
        if not isinstance(batch, _Spilled):
            self._held -= batch.bytes
            return batch
        found = batch.kind(*torch.load(batch.path, weights_only=True))
        batch.path.unlink()
        return found
