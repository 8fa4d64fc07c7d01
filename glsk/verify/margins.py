"""Lower bounds of the margins, rounding taken off, and when they certify."""

import math
from typing import Any

import torch
from torch import Tensor

import glsk
from glsk.precision import accurate
from glsk.verify import outward
from glsk.verify.rounding import Rounding, outward_ball

AT_ONCE = 8
"""Samples whose slack is looked at closer together: their passes are not cut to a memory limit."""


def certified_rows(lower: Tensor) -> Tensor:
    """Which samples [B] have all their margins' lower bounds [B, K-1] above 0."""
    return (lower > 0).all(dim=1)


def lower_margins(
    bounded: "glsk.BoundedModule",
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    method: str,
    num_classes: int,
    backend: str,
    clip: tuple[float, float],
) -> Tensor:
    """Lower bounds [B, K-1] of the margins f_y - f_j on the clipped eps-ball around x [B, C, H, W], in x's dtype.

    In float64 they hold exactly: the ball is rounded outward, and what rounding can have added is taken off (-inf where
    nothing can be said). In float32 they are as computed, an estimate; products have the accuracy of float32 at least.
    """
    C = glsk.margins(y, num_classes).to(x.dtype)
    query: dict[str, Any] = {"C": C, "method": method, "backend": backend, "bound_upper": False}
    with torch.no_grad(), accurate():
        if x.dtype != torch.float64:
            return bounded.compute_bounds(x, eps=eps, clip=clip, **query)[0]
        low, high = outward_ball(x, eps, clip)
        lower, _ = bounded.compute_bounds(x_L=low, x_U=high, **query)
        found = held(lower, Rounding(bounded, low, high).rows(C))
        left = ((lower > 0).all(dim=1) & ~certified_rows(found)).nonzero()[:, 0]
        # In a deep network it may be only the slack that stands in the way.
        for part in left.split(AT_ONCE) if len(left) else ():
            found[part] = _closer(bounded, low[part], high[part], C[part], found[part], method, backend)
        return found


def _closer(
    bounded: "glsk.BoundedModule", low: Tensor, high: Tensor, C: Tensor, found: Tensor, method: str, backend: str
) -> Tensor:
    """``found``, or bounds with a slack that costs more and is less."""
    name = glsk.canonical_method(method)
    if name in outward.METHODS:
        _, lower = outward.hidden_and_rows(bounded, low, high, C, method=name, backend=backend)
        return found if lower is None else torch.maximum(found, lower)
    if name != "alpha-CROWN":
        return found
    moved, _ = outward.hidden_and_rows(bounded, low, high, None, backend=backend)
    hidden = moved.by_name()
    lower, _ = bounded.compute_bounds(
        x_L=low, x_U=high, C=C, method=name, backend=backend, bound_upper=False,
        intermediate=hidden, intermediate_mode="replace",
    )  # fmt: skip
    slack = Rounding(bounded, low, high, intermediate=hidden).rows(C, widened=True)
    return torch.maximum(found, held(lower, slack))


def held(lower: Tensor, slack: Tensor) -> Tensor:
    """What holds exactly of computed lower bounds: -inf where something overflowed."""
    good = lower.isfinite() & slack.isfinite()
    return torch.where(good, lower - slack, -math.inf)
