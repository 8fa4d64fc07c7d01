"""Planes above the first layer's units, sought for each row that is bounded.

Over a box the ReLU of w x + b, unstable there, lies below (t w) x + c for any shares t in [0, 1] of the weights, if c
is large enough. The best of these functions make its concave envelope (Anderson et al., 2020, in another form): those
with sum t_i d_i = u, where d_i = |w_i| (x_U - x_L)_i is what an input moves the unit by and u its upper bound. The
chord is the one of equal shares; at the corner of the box that a row picks others are far lower. Which shares serve a
row best is found by ascent of its own bound; whatever they are, the constant is then computed so that the plane
holds.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from glsk.bounds.subproblems import Roots
from glsk.network import Chain
from glsk.ops.branch_columns import Columns
from glsk.ops.branch_scratch import plane_scratch
from glsk.verify.plane_search import PlaneSearch

NUMBER_BYTES = 32
"""Of a number of a plane: what is sought, in float32 and what stands in for it on the way, and in float64."""

BEFORE = 5
"""Iterations without planes, which tell which units' upper bounds a row reads."""


@dataclass(frozen=True)
class PlaneSettings:
    """How planes are sought.

    Attributes:
        iterations: of the ascent for a goal; 0: there are no planes.
        again: of the ascent for a subproblem.
        hidden: of the ascent for a bound of a hidden unit.
    """

    iterations: int = 60
    again: int = 40
    hidden: int = 30


@dataclass(frozen=True)
class Raised:
    """Roots with planes, of a row an image.

    Attributes:
        exact, single: the roots, float64 and float32.
        start: duals from which to start, [R, 1, W].
        losses: [R, units of the first layer], what each unit's upper bound is thought to lose, of a coefficient -1.
        shares: [R, units of the first layer, taps].
    """

    exact: Roots
    single: Roots
    start: Tensor
    losses: Tensor
    shares: Tensor


def possible(chain: Chain) -> bool:
    """Whether there can be planes: above plain ReLUs that follow the first layer."""
    return len(chain.geometry) > 1 and bool(chain.geometry[0].relu) and chain.leaks[0] == 0


def fitting(roots: Roots) -> int:
    """Planes of how many rows fit the memory limit; 0 where there can be none."""
    if not possible(roots.chain):
        return 0
    layers = roots.chain.geometry
    numbers = layers[0].out_features * (math.prod(layers[0].weight_shape[1:]) + 1)
    left = roots.memory_limit - plane_scratch(layers, layers[0].out_features, torch.float32)
    return max(0, left // (NUMBER_BYTES * numbers))


def raised(
    exact: Roots,
    single: Roots,
    error: Tensor,
    rows: Tensor,
    iterations: int,
    *,
    splits: Tensor | None = None,
    start: Tensor | None = None,
    shares: Tensor | None = None,
) -> Raised:
    """Seek planes.

    Args:
        exact, single: R images each, of one shape; of ``single``'s rows bounds are to become high.
        error: float64 [R, units of the first layer], by how much computed bounds of these may be off.
        rows: float32 [R, K].
        iterations: of the ascent.
        splits, start: of every row, [R, W] and [R, 1, W].
        shares: to start from, [R, units of the first layer, taps].
    """
    found = single.bound(
        rows[:, None], splits=splits, start=start, iterations=BEFORE if start is None else 1, coefficients=True
    )
    assert found.duals is not None
    assert found.coefficients is not None
    columns = Columns(single.columns, single.lower.shape[1])
    duals, coefficients = (columns.unpacked(values[:, 0]) for values in (found.duals, found.coefficients))
    search = PlaneSearch(single, rows, columns.unpacked(splits), duals, coefficients, shares)
    search.ascend(iterations)
    planes = search.planes(exact, error)
    return Raised(
        replace(exact, planes=planes), replace(single, planes=planes.float()),
        single.at_columns(search.slopes)[:, None], search.all_losses(), search.all_shares(),
    )  # fmt: skip
