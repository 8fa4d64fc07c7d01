"""Ascent by the signs of gradients within a box, which every attack is made of."""

from collections.abc import Callable

import torch
from torch import Tensor

Gradient = Callable[[Tensor], Tensor]
"""Points to the gradient, by each of them, of what is maximised; the result may be overwritten."""


def ascend(gradient: Gradient, point: Tensor, lower: Tensor, upper: Tensor, step: float | Tensor, steps: int) -> Tensor:
    """``point`` moved ``steps`` times by ``step`` along its gradient's signs, each time back into the box; in place."""
    for _ in range(steps):
        direction = gradient(point).sign_()
        point.add_(direction, alpha=step) if isinstance(step, float) else point.addcmul_(direction, step)
        torch.minimum(torch.maximum(point, lower, out=point), upper, out=point)
    return point


def start(lower: Tensor, upper: Tensor, noise: Tensor) -> Tensor:
    """A point of the box for ``noise`` in [0, 1)."""
    return torch.addcmul(lower, upper - lower, noise)
