"""Bound many subproblems: which are proved, which inputs turn out unsafe, and what stays open."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from glsk.verify.branching import candidates
from glsk.verify.engine import Engine
from glsk.verify.goals import Goals
from glsk.verify.planes import PlaneSettings, fitting
from glsk.verify.subproblems import Subproblems

DOUBT = 1e-5
"""By how much a float32 bound must exceed its target, relative to the row's size, before float64 is asked."""


CORNERS = 64
"""Of how many subproblems, the furthest from proved, the corner that the bound picks is looked at."""


@dataclass(frozen=True)
class BranchSettings:
    """Of branch and bound; none of it affects what a verdict means.

    Attributes:
        batch: subproblems bounded at a time, at most.
        iterations: of the ascent of each.
        candidates: units whose children are tried before one is split, at most; fewer where subproblems are many.
        lr_alpha, lr_beta: of the ascent.
    """

    batch: int = 2048
    iterations: int = 12
    candidates: int = 32
    lr_alpha: float = 0.1
    lr_beta: float = 0.1


@dataclass
class Bounder:
    """What bounding needs.

    Attributes:
        engine, goals: the boxes, and what is to be proved.
        settings: of the ascent.
        counterexamples: by property, float64 inputs that were found to be unsafe.
    """

    engine: Engine
    goals: Goals
    settings: BranchSettings
    counterexamples: dict[int, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.doubt = DOUBT * (1 + self.goals.b.abs() + self.goals.A.abs().sum(-1)).float()

    def root(self, iterations: int, splits: Tensor | None = None) -> Subproblems:
        """The goals themselves, or a subproblem of each, those that stay open."""
        width = self.engine.columns.shape[1]
        splits = torch.zeros(self.goals.size, width, dtype=torch.int8) if splits is None else splits
        start = {} if self.engine.start is None else {"start": self.engine.start.expand(-1, self.goals.A.shape[1], -1)}
        return self._open(torch.arange(self.goals.size), splits, iterations, splits=splits, **start)

    def raised(self, settings: PlaneSettings, parents: Subproblems | None = None) -> "Bounder":
        """One of a box, a goal and planes for each of the goals, or of the subproblems; itself where none can be."""
        goals, engine = self.goals, self.engine
        goal = torch.arange(goals.size) if parents is None else parents.goal
        if not settings.iterations or not 0 < len(goal) <= fitting(engine.exact):
            return self
        box = goals.box[goal]
        own = Goals(
            goals.x_L[box], goals.x_U[box], goals.owner[box], torch.arange(len(goal)), goals.A[goal], goals.b[goal],
            goals.point[box],
        )  # fmt: skip
        engine = engine.take(box)
        how = {} if parents is None else {"splits": parents.splits, "start": parents.duals.float()}
        found = engine.screen(own.A, own.box, iterations=1, **how)
        assert found.duals is not None
        row = (found.lower - own.b).argmax(dim=1)
        C = own.A[own.box, row]
        if parents is None:
            engine = engine.raised(C, settings.iterations)
        else:
            engine = engine.raised(C, settings.again, parents.splits, found.duals[own.box, row])
        return Bounder(engine, own, self.settings, self.counterexamples)

    def children(self, parents: Subproblems, column: Tensor) -> Subproblems:
        """Split a column [N] of each both ways: those that stay open. None is further from proved than its parent."""
        parent, at = torch.arange(len(parents)).repeat_interleave(2), column.repeat_interleave(2)
        side = torch.tensor([1, -1]).repeat(len(parents))
        splits = parents.splits[parent]
        splits[torch.arange(len(at)), at] = side.to(torch.int8)
        return self._open(
            parents.goal[parent], splits, self.settings.iterations, parents.margin[parent],
            splits=parents.splits, start=parents.duals.float(), parent=parent, extra=((at + 1) * side).int(),
        )  # fmt: skip

    def _open(
        self, goal: Tensor, splits: Tensor, iterations: int, known: Tensor | None = None, /, **where: Tensor
    ) -> Subproblems:
        """Bound subproblems of goals [N]: those that stay open. ``where``: splits and starts as ``Roots.bound``."""
        settings, goals, engine = self.settings, self.goals, self.engine
        A, b, box = goals.A[goal], goals.b[goal], goals.box[goal]
        result = engine.screen(
            A, box, threshold=b.float() + self.doubt[goal], iterations=iterations,
            lr_alpha=settings.lr_alpha, lr_beta=settings.lr_beta, coefficients=True, **where,
        )  # fmt: skip
        assert result.duals is not None
        assert result.coefficients is not None
        margins = result.lower - b.float()
        done = (margins > self.doubt[goal]).any(dim=1)
        which = done.nonzero()[:, 0]
        if len(which):
            done[which] = engine.proves(A[which], b[which], box[which], splits[which], result.duals[which])
        left = (~done).nonzero()[:, 0]
        goal, splits = goal[left], splits[left]
        margin, row = margins[left].max(dim=1)
        margin = margin if known is None else torch.maximum(margin, known[left])
        worst = margin.topk(min(len(margin), CORNERS), largest=False).indices
        self.look(goal[worst], self._corners(goal[worst], splits[worst], result.duals[left[worst]], row[worst]))
        units = candidates(engine, result.coefficients, left, row, goals.box[goal], splits, settings.candidates)
        return Subproblems(goal, splits, result.duals.half()[left], units, margin)

    def _corners(self, goal: Tensor, splits: Tensor, duals: Tensor, row: Tensor) -> Tensor:
        """The corners of the boxes that bounds of rows [N] pick, [N, *input_shape]."""
        if not len(goal):
            return self.goals.x_L[:0]
        A, box = self.goals.A[goal], self.goals.box[goal]
        found = self.engine.screen(A, box, splits=splits, start=duals, iterations=1, duals=False, corner=True).corner
        assert found is not None
        return found[torch.arange(len(goal)), row]

    def look(self, goal: Tensor, points: Tensor) -> None:
        """Whether points [N, *input_shape] of the goals' boxes are unsafe."""
        if not len(goal):
            return
        box = self.goals.box[goal]
        inside = torch.minimum(torch.maximum(points.double(), self.goals.x_L[box]), self.goals.x_U[box])
        met = self.engine.networks.meets(self.goals, inside, goal)
        for i in met.nonzero()[:, 0].tolist():
            self.counterexamples.setdefault(int(self.goals.property[goal[i]]), inside[i])
