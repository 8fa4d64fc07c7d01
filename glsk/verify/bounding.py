"""Bound many subproblems: which are proved, which inputs turn out unsafe, and what stays open."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from glsk.verify.branching import candidates
from glsk.verify.engine import Engine
from glsk.verify.goals import Goals
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

    def root(self, iterations: int) -> Subproblems:
        """The goals themselves, those that stay open."""
        splits = torch.zeros(self.goals.size, self.engine.roots.lower.shape[1], dtype=torch.int8)
        return self.bound(torch.arange(self.goals.size), splits, None, iterations)

    def bound(self, goal: Tensor, splits: Tensor, starts: Tensor | None, iterations: int) -> Subproblems:
        """Bound subproblems of goals [N]: those that stay open."""
        settings, goals, engine = self.settings, self.goals, self.engine
        A, b, box = goals.A[goal], goals.b[goal], goals.box[goal]
        result = engine.screen(
            A, box, splits=splits, start=starts, threshold=b.float() + self.doubt[goal], iterations=iterations,
            lr_alpha=settings.lr_alpha, lr_beta=settings.lr_beta, coefficients=True, corner=True,
        )  # fmt: skip
        assert result.duals is not None
        assert result.coefficients is not None
        assert result.corner is not None
        margins = result.lower - b.float()
        done = (margins > self.doubt[goal]).any(dim=1)
        which = done.nonzero()[:, 0]
        if len(which):
            done[which] = engine.proves(A[which], b[which], box[which], splits[which], result.duals[which])
        left = (~done).nonzero()[:, 0]
        goal, splits = goal[left], splits[left]
        margin, row = margins[left].max(dim=1)
        worst = margin.topk(min(len(margin), CORNERS), largest=False).indices
        self.look(goal[worst], result.corner[left[worst], row[worst]])
        units = candidates(engine, result.coefficients[left, row], goals.box[goal], splits, settings.candidates)
        return Subproblems(goal, splits, result.duals[left].half(), units, margin)

    def look(self, goal: Tensor, points: Tensor) -> None:
        """Whether points [N, *input_shape] of the goals' boxes are unsafe."""
        if not len(goal):
            return
        box = self.goals.box[goal]
        inside = torch.minimum(torch.maximum(points.double(), self.goals.x_L[box]), self.goals.x_U[box])
        met = self.engine.networks.meets(self.goals, inside, goal)
        for i in met.nonzero()[:, 0].tolist():
            self.counterexamples.setdefault(int(self.goals.property[goal[i]]), inside[i])
