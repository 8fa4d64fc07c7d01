"""Which units the tensors of ``glsk.ops.branch_pass``'s subproblems have columns for, and whose rows they have."""

from dataclasses import dataclass
from typing import overload

import torch
from torch import Tensor


def require_in_range(
    lower: Tensor,
    index: Tensor | None,
    parents: int,
    parent: Tensor | None,
    extra: Tensor | None,
    columns: Tensor | None,
) -> None:
    """Raises ValueError where a subproblem names an image, a row or a column that is not there, or columns descend.

    Args:
        lower: [I, U].
        parents: rows that the parents' tensors have.
        The others: as ``branch_pass``.
    """
    images, units = lower.shape
    width = units if columns is None else columns.shape[1]
    for name, numbers, low, end in (
        ("index", index, 0, images),
        ("parent", parent, 0, parents),
        ("extra", extra, -width, width + 1),
    ):
        if numbers is not None and not ((numbers >= low) & (numbers < end)).all():
            raise ValueError(f"branch_pass: {name}: every entry must lie in [{low}, {end})")
    if columns is None or not columns.numel():
        return
    good = (columns >= 0) & (columns <= units)
    good[:, 1:] &= (columns[:, 1:] > columns[:, :-1]) | (columns[:, 1:] == units)
    if not good.all():
        raise ValueError(f"branch_pass: columns: expected units below {units}, ascending, and {units} past the last")


def require_listed(units: Tensor, outputs: int) -> None:
    """Raises ValueError where lists of ``plane_search`` name a unit that is not there, or descend."""
    good = (units >= 0) & (units <= outputs)
    good[:, 1:] &= (units[:, 1:] > units[:, :-1]) | (units[:, 1:] == outputs)
    if not good.all():
        raise ValueError(f"plane_search: units: expected units below {outputs}, ascending, and {outputs} past the last")


def parents(splits: Tensor | None, start: Tensor | None, C: Tensor) -> int:
    """How many rows the tensors that ``parent`` indexes have."""
    return len(splits if splits is not None else start if start is not None else C)


def children(
    splits: Tensor | None, start: Tensor | None, parent: Tensor | None, extra: Tensor | None, width: int
) -> tuple[Tensor | None, Tensor | None]:
    """The subproblems' own splits [B, width] and start [B, S, width]."""
    if parent is not None:
        splits, start = (None if t is None else t[parent] for t in (splits, start))
    if extra is None:
        return splits, start
    splits = torch.zeros(len(extra), width, dtype=torch.int8, device=extra.device) if splits is None else splits.clone()
    start = None if start is None else start.clone()
    some = extra.nonzero()[:, 0]
    column = extra[some].abs().long() - 1
    splits[some, column] = extra[some].sign().to(torch.int8)
    if start is not None:
        start[some, :, column] = 0
    return splits, start


@dataclass(frozen=True)
class Columns:
    """Which unit each column is, [B, W], padded by U; None: the columns are the units."""

    unit: Tensor | None
    units: int

    @classmethod
    def of(cls, columns: Tensor | None, image: Tensor, units: int) -> "Columns":
        return cls(None if columns is None else columns[image], units)

    @property
    def width(self) -> int:
        return self.units if self.unit is None else self.unit.shape[1]

    @overload
    def unpacked(self, values: Tensor) -> Tensor: ...
    @overload
    def unpacked(self, values: None) -> None: ...
    @overload
    def unpacked(self, values: Tensor | None) -> Tensor | None: ...
    def unpacked(self, values: Tensor | None) -> Tensor | None:
        """[B, ..., W] to [B, ..., U], zeros where there is no column."""
        if self.unit is None or values is None:
            return values
        found = values.new_zeros(*values.shape[:-1], self.units + 1)
        return found.scatter_(-1, self._of(values), values)[..., :-1]

    def packed(self, values: Tensor) -> Tensor:
        """[B, ..., U] to [B, ..., W], zeros past the last column."""
        if self.unit is None:
            return values
        return torch.nn.functional.pad(values, (0, 1)).gather(-1, self._of(values))

    def _of(self, like: Tensor) -> Tensor:
        assert self.unit is not None
        unit = self.unit if like.dim() == 2 else self.unit[:, None]
        return unit.expand(*like.shape[:-1], -1)
