"""Which unit to split: the few whose upper lines cost the bound most, and of these the one whose children gain most.

Filtered smart branching (De Palma et al., 2021) with another filter. A row with coefficient a < 0 on a unit loses
-a t to the intercept t of the unit's upper line: what a split can win back at most, at once. BaBSR's score adds the
unit's bias; on the one hard goal where both were tried, it was still open when this had closed.
"""

from dataclasses import replace

import torch
from torch import Tensor

from glsk.verify.engine import Engine
from glsk.verify.goals import Goals
from glsk.verify.subproblems import Subproblems

FEW, TRIED = 512, 8
"""Near the top of a tree more units are tried: of few subproblems so many pairs of children in all, of many so many
each."""

AT_ONCE = 128
"""Subproblems whose scores are looked at together, while they lie in the cache."""


def candidates(
    engine: Engine, coefficients: Tensor, left: Tensor, row: Tensor, index: Tensor, splits: Tensor, count: int
) -> Tensor:
    """The columns of the greatest loss, first the greatest, int32 [N, count]; -1 where fewer are free.

    Args:
        engine: the boxes.
        coefficients: float32 [B, S, W].
        left, row: the subproblems [N] of the B, and of each the row to improve.
        index: their boxes [N].
        splits: [N, W].
        count: how many.
    """
    units = torch.full((len(index), count), -1, dtype=torch.int32)
    some = min(count, splits.shape[1])
    for part in torch.arange(len(index)).split(AT_ONCE) if len(index) else ():
        box = index[part]
        box = box[:1] if bool((box == box[0]).all()) else box
        # A free unit that costs nothing is split only where no other is left.
        scores = torch.maximum(coefficients[left[part], row[part]] * engine.losses[box], engine.least[box])
        best = scores.masked_fill_(splits[part] != 0, 0).topk(some, dim=1)
        units[part, :some] = torch.where(best.values > 0, best.indices, -1).int()
    return units


def choose(engine: Engine, goals: Goals, open_: Subproblems) -> Tensor:
    """Of every subproblem the column to split, int64 [N]; -1 where no unit is free."""
    count = min(open_.units.shape[1], max(TRIED, FEW // max(1, len(open_))))
    open_ = replace(open_, units=open_.units[:, :count])
    if count == 1:
        return open_.units[:, 0].long()
    chosen = open_.units[:, 0].long()
    several = (open_.units >= 0).sum(dim=1) > 1
    tried = open_[several]
    if not len(tried):
        return chosen
    # A subproblem's trials stand side by side: its columns, each split both ways.
    of = torch.arange(len(tried)).repeat_interleave(2 * count)
    sides = torch.tensor([1, -1], dtype=torch.int32)
    A, b, box = goals.A[tried.goal].float(), goals.b[tried.goal].float(), goals.box[tried.goal]
    found = engine.screen(
        A[of], box[of], splits=tried.splits, start=tried.duals.float(), parent=of,
        extra=((tried.units + 1)[:, :, None] * sides).flatten(), iterations=1, duals=False,
    ).lower  # fmt: skip
    # A child that is proved gains no more by being proved by far.
    gained = (found - b[of]).amax(dim=1).clamp(max=0).view(-1, count, 2).sum(dim=2)
    best = gained.masked_fill(tried.units < 0, -torch.inf).argmax(dim=1, keepdim=True)
    chosen[several] = tried.units.gather(1, best)[:, 0].long()
    return chosen
