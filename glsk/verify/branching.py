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


def candidates(engine: Engine, coefficients: Tensor, index: Tensor, splits: Tensor, count: int) -> Tensor:
    """The units of the greatest loss, first the greatest, int32 [N, count]; -1 where fewer are free.

    Args:
        engine: the boxes.
        coefficients: of the rows to improve, float32 [N, U].
        index: boxes [N].
        splits: [N, U].
        count: how many.
    """
    scores = (engine.intercepts[index] * -coefficients).clamp_(min=0)
    # A free unit that costs nothing is split only where no other is left.
    scores += 1e-30 * engine.unstable[index]
    scores.masked_fill_(splits != 0, 0)
    best = scores.topk(min(count, scores.shape[1]), dim=1)
    units = torch.where(best.values > 0, best.indices, -1).int()
    return torch.nn.functional.pad(units, (0, count - units.shape[1]), value=-1)


def choose(engine: Engine, goals: Goals, open_: Subproblems) -> Tensor:
    """Of every subproblem the unit to split, int64 [N]; -1 where no unit is free."""
    count = min(open_.units.shape[1], max(TRIED, FEW // max(1, len(open_))))
    open_ = replace(open_, units=open_.units[:, :count])
    if count == 1:
        return open_.units[:, 0].long()
    rows = (open_.units >= 0).sum(dim=1)
    several = (rows > 1).nonzero()[:, 0]
    chosen = open_.units[:, 0].long()
    if not len(several):
        return chosen
    tried = open_[several]
    sides = []
    repeated = torch.arange(len(tried)).repeat_interleave(count)
    part = tried[repeated]
    unit = tried.units.flatten().long()
    there = unit >= 0
    goal, starts = part.goal, part.duals.float()
    index = torch.arange(len(unit))
    starts[index, :, unit.clamp(min=0)] = 0
    for sign in (1, -1):
        splits = part.splits.clone()
        splits[index[there], unit[there]] = sign
        found = engine.screen(
            goals.A[goal], goals.box[goal], splits=splits, start=starts, iterations=1, duals=False
        ).lower
        sides.append((found - goals.b[goal].float()).amax(dim=1))
    # A child that is proved gains no more by being proved by far.
    worth = (sides[0].clamp(max=0) + sides[1].clamp(max=0)).masked_fill(~there, -torch.inf).view(-1, count)
    chosen[several] = tried.units.gather(1, worth.argmax(dim=1, keepdim=True))[:, 0].long()
    return chosen
