"""Branch and bound on the signs of hidden units, many properties at a time."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from glsk.verify.bounding import Bounder
from glsk.verify.branching import choose
from glsk.verify.leaves import decide_leaf
from glsk.verify.planes import PlaneSettings
from glsk.verify.stack import Stack
from glsk.verify.subproblems import Subproblems
from glsk.verify.verdict import Status

RAISED, OF_RAISED = 16, 100
"""For how many subproblems planes are sought at a time, and how many of each are then looked at with them."""

ROUND_SECONDS = 0.5
"""How long a round should take at most: the time limit is looked at between rounds."""


class Outcome(NamedTuple):
    """Of one property's search: see :class:`glsk.verify.verdict.Verdict`."""

    property: int
    status: Status
    counterexample: Tensor | None
    seconds: float
    subproblems: int


@dataclass
class _Open:
    stack: Stack[Subproblems]
    seconds: float
    subproblems: int = 0
    stuck: bool = False


class Search:
    """The open goals of some properties, split until each is decided.

    Args:
        bounder: of the goals.
        start: the goals' roots, bounded and open.
        seconds: of every property, what it has used already.
        timeout: seconds a property may use in all.
        memory_limit: bytes that open subproblems may hold.
        clock: gives the time in seconds.
        planes: how they are sought for subproblems, where the bounder's engine has some.
    """

    def __init__(
        self,
        bounder: Bounder,
        start: Subproblems,
        seconds: Mapping[int, float],
        timeout: float,
        memory_limit: int,
        clock: Callable[[], float] = time.perf_counter,
        planes: PlaneSettings | None = None,
    ) -> None:
        self.bounder, self.timeout, self.clock = bounder, timeout, clock
        self.owner = bounder.goals.property
        owners = self.owner[start.goal].unique().tolist()
        self.open = {p: _Open(Stack(memory_limit // max(1, len(owners))), seconds[p]) for p in owners}
        self.planes = planes if bounder.engine.start is not None else None
        self.most = bounder.settings.batch if self.planes is None else 2 * RAISED
        self.size = min(self.most, 256)
        self._push(start)

    def run(self) -> Iterator[Outcome]:
        """What becomes of each property, as soon as it is decided."""
        try:
            while self.open:
                yield from self._round()
        finally:
            for search in self.open.values():
                search.stack.close()

    def _round(self) -> Iterator[Outcome]:
        began = self.clock()
        quota = max(1, self.size // (2 * len(self.open)))
        taken = {p: batch for p, search in self.open.items() if (batch := search.stack.pop(quota)) is not None}
        parents = Subproblems.join(taken.values())
        self._expand(parents)
        spent = self.clock() - began
        if spent > ROUND_SECONDS:
            self.size = max(2, self.size // 2)
        elif spent < ROUND_SECONDS / 3:
            self.size = min(self.most, self.size * 2)
        for p, batch in taken.items():
            search = self.open[p]
            search.seconds += spent * len(batch) / len(parents)
            status = self._status(p, search)
            if status is not None:
                search.stack.close()
                del self.open[p]
                point = self.bounder.counterexamples.get(p)
                yield Outcome(p, status, point, search.seconds, search.subproblems)

    def _status(self, p: int, search: _Open) -> Status | None:
        if p in self.bounder.counterexamples:
            return "sat"
        if not len(search.stack):
            return "unknown" if search.stuck else "unsat"
        return "timeout" if search.seconds >= self.timeout else None

    def _expand(self, parents: Subproblems) -> None:
        """Split every subproblem, bound the children and keep the open ones."""
        bounder, goal, most = self.bounder, torch.arange(self.bounder.goals.size), 1
        if self.planes is not None and (own := bounder.raised(self.planes, parents)) is not bounder:
            bounder, goal, most = own, parents.goal, OF_RAISED * len(parents)
            parents = bounder.root(bounder.settings.iterations, parents.splits)
        while most > 0 and len(parents):
            most -= 2 * len(parents)
            owner = bounder.goals.property[parents.goal]
            for p, count in zip(*owner.unique(return_counts=True), strict=True):
                self.open[int(p)].subproblems += 2 * int(count)
            unit = choose(bounder.engine, bounder.goals, parents)
            for i in (unit < 0).nonzero()[:, 0].tolist():
                self._leaf(bounder, parents[i : i + 1])
            parents, unit = parents[unit >= 0], unit[unit >= 0]
            if len(parents):
                parents = bounder.children(parents, unit)
        self._push(replace(parents, goal=goal[parents.goal]))

    def _push(self, batch: Subproblems) -> None:
        """Keep open subproblems, the furthest from proved on top."""
        owner = self.owner[batch.goal]
        for p in owner.unique().tolist():
            mine = (owner == p).nonzero()[:, 0]
            self.open[p].stack.push(batch[mine[batch.margin[mine].argsort(descending=True)]])

    def _leaf(self, bounder: Bounder, leaf: Subproblems) -> None:
        """No unit is free: a linear program."""
        goal = int(leaf.goal)
        point, proved = decide_leaf(bounder.engine, bounder.goals, goal, leaf.splits[0])
        if point is not None:
            bounder.look(leaf.goal, point[None])
        if not proved:
            self.open[int(bounder.goals.property[goal])].stuck = True
