"""Lower bounds of the margins, and when they certify."""

import torch
from torch import Tensor

import glsk
from glsk.precision import accurate

THRESHOLD = 1e-9
"""What a float64 margin's lower bound must exceed, in units of the sample's largest logit (or 1, if that is less).

Bounds are not rounded outward. In float32 the lower bounds of margins that are 0 or less reached 7e-7 on CNN3 and CNN5;
float64's rounding is 2^29 times finer, so about 1e-15 there. The threshold leaves a factor of a million for deeper
networks and larger intermediate values, and is still far below any margin that matters.
"""


def threshold(logits: Tensor) -> Tensor:
    """What the lower bounds of samples with these logits [B, K] must exceed: [B], 0 in float32 (an estimate anyway)."""
    if logits.dtype != torch.float64:
        return torch.zeros_like(logits[:, 0])
    return THRESHOLD * logits.abs().amax(dim=1).clamp(min=1)


def certified_rows(lower: Tensor, logits: Tensor) -> Tensor:
    """Which samples [B] have all their margins' lower bounds [B, K-1] above the threshold of their logits [B, K]."""
    return (lower > threshold(logits)[:, None]).all(dim=1)


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

    Products have the accuracy of float32 at least.
    """
    with torch.no_grad(), accurate():
        lower, _ = bounded.compute_bounds(
            x,
            eps=eps,
            clip=clip,
            C=glsk.margins(y, num_classes).to(x.dtype),
            method=method,
            backend=backend,
            bound_upper=False,
        )
    return lower
