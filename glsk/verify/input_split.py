"""Branch and bound on the input, for networks of a few input features: boxes are halved, and bounded anew by CROWN.

Float32 says which boxes are worth float64's decision. A box is cut where the network's own gradient, averaged over
random points of it, times the box's width is largest.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import glsk
from glsk.verify.bab import ROUND_SECONDS, Outcome
from glsk.verify.bounding import DOUBT
from glsk.verify.engine import Networks
from glsk.verify.goals import Goals
from glsk.verify.rounding import Rounding
from glsk.verify.stack import Batch, Stack
from glsk.verify.verdict import Status

SAMPLES = 8
"""Random points of a box, beside its centre, whose gradients say where to cut."""


@dataclass(frozen=True)
class Boxes(Batch):
    """N open boxes: of which goal [N], and their ends [N, *input_shape], float64."""

    goal: Tensor
    x_L: Tensor
    x_U: Tensor


class BoxSearch:
    """The open goals of some properties, their boxes halved until each is decided.

    Args:
        networks: the network.
        goals: what is to be proved; all are open.
        seconds: of every property, what it has used already.
        timeout: seconds a property may use in all.
        batch: boxes bounded at a time, at most.
        open_limit: bytes that open boxes may hold in memory; what is more waits on disk.
        clock: gives the time in seconds.
        options: of ``BoundedModule.compute_bounds``.
    """

    def __init__(
        self,
        networks: Networks,
        goals: Goals,
        seconds: Mapping[int, float],
        timeout: float,
        batch: int,
        open_limit: int,
        clock: Callable[[], float] = time.perf_counter,
        **options: Any,
    ) -> None:
        self.networks, self.goals, self.timeout, self.batch = networks, goals, timeout, batch
        self.clock, self.options = clock, options
        self.seconds, self.size = dict(seconds), min(batch, 512)
        self.counts = dict.fromkeys(goals.property.tolist(), 0)
        self.generator = torch.Generator().manual_seed(0)
        self.counterexamples: dict[int, Tensor] = {}
        whole = Boxes(torch.arange(goals.size), goals.x_L[goals.box], goals.x_U[goals.box])
        self.open: dict[int, Stack[Boxes]] = {p: Stack(open_limit // len(self.counts)) for p in self.counts}
        self._push(whole)

    def run(self) -> Iterator[Outcome]:
        """What becomes of each property, as soon as it is decided."""
        try:
            while self.open:
                yield from self._round()
        finally:
            for stack in self.open.values():
                stack.close()

    def _round(self) -> Iterator[Outcome]:
        began = self.clock()
        quota = max(1, self.size // len(self.open))
        taken = {p: boxes for p, stack in self.open.items() if (boxes := stack.pop(quota)) is not None}
        batch = Boxes.join(taken.values())
        self._push(self._halve(*self._bound(batch)))
        spent = self.clock() - began
        if spent > ROUND_SECONDS:
            self.size = max(1, self.size // 2)
        elif spent < ROUND_SECONDS / 3:
            self.size = min(self.batch, self.size * 2)
        for p, part in taken.items():
            self.seconds[p] += spent * len(part.goal) / len(batch.goal)
            self.counts[p] += len(part.goal)
            status = self._status(p)
            if status is not None:
                self.open.pop(p).close()
                yield Outcome(p, status, self.counterexamples.get(p), self.seconds[p], self.counts[p])

    def _status(self, p: int) -> Status | None:
        if p in self.counterexamples:
            return "sat"
        if not len(self.open[p]):
            return "unsat"
        return "timeout" if self.seconds[p] >= self.timeout else None

    def _bound(self, batch: Boxes) -> tuple[Boxes, Tensor]:
        """The boxes that stay open, and how much each input feature moves their best row [N, n]."""
        A, b = self.goals.A[batch.goal], self.goals.b[batch.goal]
        margin = (self._crown(self.networks.screening, batch, A) - b.float()).max(dim=1)
        size = b.abs().amax(dim=1) + A.abs().sum(-1).amax(dim=1)
        done = margin.values > DOUBT * (1 + size)
        proved = done.nonzero()[:, 0]
        if len(proved):
            boxes, rows = batch[proved], A[proved]
            slack = Rounding(self.networks.bounded, boxes.x_L, boxes.x_U).rows(rows)
            done[proved] = (self._crown(self.networks.bounded, boxes, rows) - slack > b[proved]).any(dim=1)
        left = (~done).nonzero()[:, 0]
        open_ = batch[left]
        center = open_.x_L + (open_.x_U - open_.x_L) / 2
        slope = self._gradient(center, A[left, margin.indices[left]])
        self._look(open_.goal, center)
        self._look(open_.goal, torch.where(slope >= 0, open_.x_L, open_.x_U))
        width = open_.x_U - open_.x_L
        moves = slope.abs()
        for _ in range(SAMPLES):
            points = open_.x_L + width * torch.rand(width.shape, generator=self.generator, dtype=width.dtype)
            moves += self._gradient(points, A[left, margin.indices[left]]).abs()
        return open_, (moves * width).flatten(1)

    def _crown(self, bounded: "glsk.BoundedModule", boxes: Boxes, A: Tensor) -> Tensor:
        """CROWN's lower bounds [N, S] of rows in boxes, in the network's precision."""
        dtype = next(bounded.net.parameters()).dtype
        lower, _ = bounded.compute_bounds(
            x_L=boxes.x_L.to(dtype), x_U=boxes.x_U.to(dtype), C=A, method="CROWN", bound_upper=False, **self.options
        )
        found: Tensor = lower
        return found

    def _gradient(self, points: Tensor, rows: Tensor) -> Tensor:
        """Of rows [N, K] of the outputs at points [N, *input_shape]."""
        if not len(points):
            return points
        with torch.enable_grad():
            at = points.float().requires_grad_(True)
            (slope,) = torch.autograd.grad((self.networks.single(at) * rows.float()).sum(), at)
        return slope.double()

    def _look(self, goal: Tensor, points: Tensor) -> None:
        """Whether points of the goals' boxes are unsafe."""
        if not len(goal):
            return
        for i in self.networks.meets(self.goals, points, goal).nonzero()[:, 0].tolist():
            self.counterexamples.setdefault(int(self.goals.property[goal[i]]), points[i])

    def _halve(self, boxes: Boxes, moves: Tensor) -> Boxes:
        """Both halves of every box, cut across the feature that moves its bound most (the widest where none does)."""
        width = (boxes.x_U - boxes.x_L).flatten(1)
        worth = torch.where(moves.amax(dim=1, keepdim=True) > 0, moves, width).masked_fill(width <= 0, -1)
        at = torch.arange(len(width)), worth.argmax(dim=1)
        lower, upper = boxes.x_L.flatten(1), boxes.x_U.flatten(1)
        middle = lower[at] + (upper[at] - lower[at]) / 2
        low, high = upper.clone(), lower.clone()
        low[at], high[at] = middle, middle
        shape = boxes.x_L.shape[1:]
        halves = ((boxes.x_L, low.unflatten(1, shape)), (high.unflatten(1, shape), boxes.x_U))
        return Boxes.join(Boxes(boxes.goal, *ends) for ends in halves)

    def _push(self, boxes: Boxes) -> None:
        owner = self.goals.property[boxes.goal]
        for p in owner.unique().tolist():
            self.open[p].push(boxes[owner == p])
