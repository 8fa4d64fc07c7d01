"""Lower bounds of the margins, rounding taken off, and when they certify."""

import math
from typing import Any

import torch
from torch import Tensor

import glsk
from glsk.precision import accurate
from glsk.verify.rounding import Rounding, outward_ball


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
        return held(lower, Rounding(bounded, low, high).rows(C))


def held(lower: Tensor, slack: Tensor) -> Tensor:
    """What holds exactly of computed lower bounds: -inf where something overflowed."""
    good = lower.isfinite() & slack.isfinite()
    return torch.where(good, lower - slack, -math.inf)
