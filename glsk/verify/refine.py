"""Tighter bounds of hidden units at the root: a small branch and bound of each, on the signs of the units below it.

What the lines of a layer lose against the network is lost again in every subproblem, so a bound of a hidden unit that
is worth thousands of subproblems there may cost hundreds here. (Refining hidden bounds by a mixed-integer program is
older, e.g. Singh et al., "Boosting robustness certification", 2019; here the bounds under splits are beta-CROWN's.)
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from glsk.bounds.subproblems import SubproblemBounds
from glsk.bounds.tightening import below
from glsk.verify.engine import Engine
from glsk.verify.goals import Goals
from glsk.verify.magnitudes import GROWTH, total
from glsk.verify.planes import fitting, raised

GROWN = 4
"""A round splits the worst one in so many of a row's leaves."""

TOGETHER = 8
"""But of a row with planes of its own at least so many: only its own leaves are bounded together, 16 at a time."""

MOVED = 1e-3
"""A bound that has moved by less has not moved."""

AT_ONCE = 256
"""Rows refined together, at most."""

LEAF_BYTES = 16
"""Of memory for every unit below, of a leaf: what is kept of it, and its share of what a round computes."""


@dataclass(frozen=True)
class RefineSettings:
    """How much is done for the bounds of hidden units.

    Attributes:
        leaves: of a bound's tree, on average over the bounds of a layer, the first time; 0 refines nothing.
        most: leaves of one bound, in such averages, at most.
        growth: each further time has so many times the leaves.
        iterations: of the ascent of each.
        share: of the time, at most.
    """

    leaves: int = 12
    most: int = 8
    growth: int = 4
    iterations: int = 4
    share: float = 0.5


class Leaves:
    """Subproblems that cover each row's box, and bounds of the row on them: the first ``count`` of each tensor.

    Attributes:
        row: which row [L].
        splits, duals, lower: int8 [L, U], float16 [L, U], [L].
        unit: to split next, [L]; -1 where there is none.
    """

    def __init__(self, most: int, units: int) -> None:
        self.count = 0
        self.row, self.unit, self.lower = torch.empty(most).long(), torch.empty(most).long(), torch.empty(most)
        self.splits, self.duals = torch.empty(most, units, dtype=torch.int8), torch.empty(most, units).half()

    def write(self, at: Tensor, row: Tensor, splits: Tensor, found: SubproblemBounds, intercepts: Tensor) -> None:
        """Bounds at places ``at``; split next is the unit whose ``intercepts`` [L, U] costs the bound most."""
        assert found.duals is not None
        assert found.coefficients is not None
        loss = intercepts.mul_(found.coefficients[:, 0]).neg_().masked_fill_(splits != 0, 0)
        best = loss.max(dim=1)
        self.row[at], self.lower[at], self.splits[at] = row, found.lower[:, 0], splits
        self.duals[at] = found.duals[:, 0].half()
        self.unit[at] = best.indices.masked_fill(~(best.values > 0), -1)
        self.count = max(self.count, int(at.max()) + 1)


class Layer:
    """The hidden units of one affine layer, bounded through the network below them.

    Args:
        engine: the boxes and the bounds of the layers below.
        k: number of the affine layer.
        part: where its units stand.
    """

    def __init__(self, engine: Engine, k: int, part: slice) -> None:
        self.engine, self.part, self.n = engine, part, part.stop - part.start
        self.exact, self.single = below(engine.roots, k, part.start), below(engine.screens, k, part.start)
        self.intercepts = engine.intercepts[:, : part.start]
        self.start: Tensor | None = None

    def rows(self, unit: Tensor, side: Tensor, like: Tensor) -> Tensor:
        """Rows [N, 1, n]: the unit, or less the unit."""
        found = like.new_zeros(len(unit), 1, self.n)
        found.scatter_(2, unit[:, None, None], side.to(like)[:, None, None])
        return found

    def refine(self, image: Tensor, unit: Tensor, side: Tensor, wanted: Tensor, iterations: int, planes: int) -> Tensor:
        """Lower bounds, float64 [R], that hold, of side * unit in the boxes ``image``, by at most ``wanted`` leaves.

        ``planes``: iterations in which each row's are sought; 0: none.
        """
        if planes:
            return self._raised(image, unit, side, planes).refine(image, unit, side, wanted, iterations, 0)
        rows = torch.arange(len(image))
        leaves = Leaves(int(room(wanted).sum()), self.part.start)
        splits = torch.zeros(len(rows), self.part.start, dtype=torch.int8)
        found = self._bound(rows, image, unit, side, splits, self.start, 20 if self.start is None else iterations)
        leaves.write(rows, rows, splits, found, self._losses(rows, image))
        while len(chosen := self._next(leaves, wanted, 1 if self.start is None else TOGETHER)):
            children = torch.stack((chosen, leaves.count + torch.arange(len(chosen))), dim=1).flatten()
            parents = chosen.repeat_interleave(2)
            row, splits, duals = leaves.row[parents], leaves.splits[parents], leaves.duals[parents].float()
            at, which = torch.arange(len(parents)), leaves.unit[parents]
            splits[at, which] = torch.tensor([1, -1], dtype=torch.int8).repeat(len(chosen))
            duals[at, which] = 0
            found = self._bound(row, image[row], unit[row], side[row], splits, duals[:, None], iterations)
            leaves.write(children, row, splits, found, self._losses(row, image[row]))
        return self._held(leaves, image, unit, side)

    @staticmethod
    def _next(leaves: Leaves, wanted: Tensor, least: int) -> Tensor:
        """Which leaves to split: of each row that is not done its worst, ``least`` of them if it has so many."""
        row, lower = leaves.row[: leaves.count], leaves.lower[: leaves.count]
        count = torch.bincount(row, minlength=len(wanted))
        order = lower.argsort()
        order = order[row[order].argsort(stable=True)]
        row = row[order]
        first = count.cumsum(0) - count
        # A bound that has made the unit stable needs no more, and one whose worst leaf is not to be split gets no more.
        worst = order[first]
        open_ = (count < wanted) & (lower[worst] < 0) & (leaves.unit[worst] >= 0)
        rank = torch.arange(len(order)) - first[row]
        chosen = order[open_[row] & (rank < ((count[row] + GROWN - 1) // GROWN).clamp(min=least))]
        return chosen[(leaves.unit[chosen] >= 0) & (leaves.lower[chosen] < 0)]

    def _raised(self, image: Tensor, unit: Tensor, side: Tensor, iterations: int) -> "Layer":
        """This layer with planes for each of the rows, whose images are then the rows."""
        exact, single = self.exact.take(image), self.single.take(image)
        first = exact.chain.geometry[0].out_features
        rows = self.rows(unit, side, single.lower)[:, 0]
        planes = raised(exact, single, self.engine.moved[image, :first], rows, iterations)
        found = copy.copy(self)
        found.exact, found.single, found.start = planes.exact, planes.single, planes.start
        found.intercepts = torch.cat((planes.losses, self.intercepts[image, first:]), dim=1)
        return found

    def _losses(self, row: Tensor, image: Tensor) -> Tensor:
        return self.intercepts[image if self.start is None else row]

    def _bound(
        self, row: Tensor, image: Tensor, unit: Tensor, side: Tensor, splits: Tensor, start: Tensor | None,
        iterations: int,
    ) -> SubproblemBounds:  # fmt: skip
        return self.single.bound(
            self.rows(unit, side, self.single.lower), index=image if self.start is None else row, splits=splits,
            threshold=0.0, start=start, iterations=iterations, coefficients=True,
        )  # fmt: skip

    def _held(self, leaves: Leaves, image: Tensor, unit: Tensor, side: Tensor) -> Tensor:
        """Of each row the least of its leaves' bounds, in float64, less what rounding may have added."""
        least = torch.full((len(image),), torch.inf, dtype=torch.float64)
        moved = self.engine.moved
        most = moved[:, : self.part.start].amax(dim=1)
        for i in torch.arange(leaves.count).split(2048):
            part = slice(int(i[0]), int(i[-1]) + 1)
            row, splits, duals = leaves.row[part], leaves.splits[part], leaves.duals[part].double()
            where = image[row]
            lower = self.exact.bound(
                self.rows(unit[row], side[row], self.exact.lower), index=where if self.start is None else row,
                splits=splits, start=duals[:, None], iterations=1, duals=False,
            ).lower[:, 0]  # fmt: skip
            multipliers = duals.masked_fill_(splits == 0, 0).sum(dim=1) * most[where]
            slack = total((moved[where, unit[row] + self.part.start] + multipliers) * GROWTH)
            held = torch.where(lower.isfinite() & slack.isfinite(), lower - slack, -torch.inf)
            least.scatter_reduce_(0, row, held, "amin")
        return least


def refine(
    engine: Engine, goals: Goals, settings: RefineSettings, late: Callable[[], bool] = bool, planes: int = 0
) -> bool:
    """Refine the engine's root bounds of all unstable hidden units, layer by layer; whether any has moved.

    The bounds hold exactly.

    Args:
        engine: of the goals' boxes.
        goals: what is still to be proved; bounds that their rows lose nothing to are left alone.
        settings: how much; ``leaves`` at least 1.
        late: whether to stop; asked every so often.
        planes: iterations in which planes are sought for each bound; 0: none.
    """
    value, before, most = worth(engine, goals), engine.roots, min(AT_ONCE, fitting(engine.exact))
    planes, most = (planes, most) if planes and most else (0, AT_ONCE)
    units = engine.roots.units
    for k, layer in enumerate(engine.roots.chain.layers[:-1]):
        if k == 0 or layer.name not in units:  # bounds of an affine function of the box are exact
            continue
        part = units[layer.name]
        found = Layer(engine, k, part)
        lower, upper = engine.roots.lower.clone(), engine.roots.upper.clone()
        image, unit, side, share = rows(engine, value, part)
        if not len(image):
            continue
        whole = torch.zeros(len(lower)).index_add_(0, image, share) / torch.bincount(image, minlength=len(lower))
        fit = engine.options["memory_limit"] // (LEAF_BYTES * max(1, part.start))
        wanted = (settings.leaves * share / whole[image]).nan_to_num(0.0, 0.0, 0.0).round().long()
        wanted.clamp_(1, max(1, min(settings.leaves * settings.most, fit // 2)))
        for i in batches(wanted, fit, most):
            if late():
                break
            held = found.refine(image[i], unit[i], side[i], wanted[i], settings.iterations, planes)
            at = image[i], unit[i] + part.start
            low = side[i] > 0
            lower[at[0][low], at[1][low]] = torch.maximum(lower[at[0][low], at[1][low]], held[low])
            upper[at[0][~low], at[1][~low]] = torch.minimum(upper[at[0][~low], at[1][~low]], -held[~low])
        engine.hold(replace(engine.roots, lower=lower, upper=upper))
    moved = (engine.roots.lower > before.lower + MOVED) | (engine.roots.upper < before.upper - MOVED)
    return bool((moved & engine.unstable).any())


def room(wanted: Tensor) -> Tensor:
    """Leaves that a row of ``wanted`` ones may come to have: its last round may go beyond."""
    return wanted + wanted // GROWN + 2 + TOGETHER


def batches(wanted: Tensor, fit: int, most: int) -> tuple[Tensor, ...]:
    """Rows to be refined together, most leaves first: ``most`` at most, of ``fit`` leaves in all if one fits."""
    order = wanted.argsort(descending=True, stable=True)
    found, held = [0], 0
    for at, leaves in enumerate(room(wanted[order]).tolist()):
        if at > found[-1] and (held + leaves > fit or at - found[-1] == most):
            found.append(at)
            held = 0
        held += leaves
    return tuple(order.tensor_split(found[1:]))


def rows(engine: Engine, value: Tensor, part: slice) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What is worth refining of a layer: boxes, units, sides (1: the lower bound) and how much each is worth, [R]."""
    low, up = engine.screens.lower[:, part], engine.screens.upper[:, part]
    image, unit = (engine.unstable[:, part] & (value[:, part] > 0)).nonzero(as_tuple=True)
    low, up, value = low[image, unit], up[image, unit], value[image, unit + part.start]
    by_lower, by_upper = slopes(low, up)
    side = torch.ones_like(low)
    share = torch.cat((value * by_lower, value * by_upper)) * (up - low).repeat(2)
    return image.repeat(2), unit.repeat(2), torch.cat((side, -side)), share.nan_to_num(0.0, 0.0, 0.0)


def slopes(low: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """How fast the upper line's intercept -low * up / (up - low) falls with either bound's tightening."""
    width = (up - low).clamp(min=1e-30)
    return (up / width) ** 2, (low / width) ** 2


def worth(engine: Engine, goals: Goals) -> Tensor:
    """How much of the intercept of a unit's upper line the goals' bounds lose, and hidden bounds' for them: [I, U]."""
    found = engine.screens.bound(goals.A.float(), index=goals.box, iterations=20, coefficients=True)
    assert found.coefficients is not None
    row = (found.lower - goals.b).argmax(dim=1)
    loss = -found.coefficients[torch.arange(goals.size), row]
    value = torch.zeros_like(engine.screens.lower).index_add_(0, goals.box, loss.clamp_(min=0))
    units = engine.roots.units
    for k, layer in reversed(list(enumerate(engine.roots.chain.layers[:-1]))):
        if k <= 1 or layer.name not in units:
            continue
        part = units[layer.name]
        image, unit, side, share = rows(engine, value, part)
        if not len(image):
            continue
        through = Layer(engine, k, part)
        share = share / (engine.screens.upper - engine.screens.lower)[image, unit + part.start]
        for i in torch.arange(len(image)).split(512):
            passed = through.single.bound(
                through.rows(unit[i], side[i], engine.screens.lower), index=image[i], iterations=1, duals=False,
                coefficients=True,
            ).coefficients  # fmt: skip
            assert passed is not None
            passed = passed[:, 0].neg_().clamp_(min=0).mul_(share[i, None])
            value[:, : part.start].index_add_(0, image[i], passed)
    return value
