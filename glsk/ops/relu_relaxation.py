"""The DeepPoly relaxation of a ReLU: two lines around max(v, 0) on [lower, upper] (paper, §2.2, Fig. 3)."""

import torch
from torch import Tensor

from glsk.ops.registry import Op


def relu_relaxation_reference(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Slopes and intercept of ``lower_slope * v <= ReLU(v) <= upper_slope * v + intercept`` for lower <= v <= upper.

    Args:
        lower, upper: pre-activation bounds, any shape, lower <= upper.

    Returns:
        lower_slope (1 where upper > -lower, else 0), upper_slope (u / (u - l)), intercept (-l u / (u - l)), of the same
        shape; a stable ReLU is the identity or zero.
    """
    active = lower >= 0
    inactive = ~active & (upper <= 0)
    stable = active | inactive
    one, zero = torch.ones_like(lower), torch.zeros_like(lower)
    # The inner where keeps the unused division finite, and its gradient too.
    width = torch.where(stable, one, upper - lower)
    upper_slope = torch.where(active, one, torch.where(inactive, zero, upper / width))
    lower_slope = torch.where(active, one, torch.where(inactive, zero, (upper > -lower).to(lower.dtype)))
    intercept = torch.where(stable, zero, -upper_slope * lower)
    return lower_slope, upper_slope, intercept


relu_relaxation = Op(
    "relu_relaxation",
    "(Tensor lower, Tensor upper, str backend) -> (Tensor, Tensor, Tensor)",
    relu_relaxation_reference,
    lambda lower, upper: (lower.new_empty(lower.shape), lower.new_empty(lower.shape), lower.new_empty(lower.shape)),
)
