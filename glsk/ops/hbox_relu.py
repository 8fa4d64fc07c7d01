"""The ReLU of the hybrid zonotope: an unstable unit falls back to its box (paper, §2.2, HBox; Fig. 2)."""

import torch
from torch import Tensor

from glsk.ops import checks
from glsk.ops.registry import Op


def hbox_relu_reference(
    box_lower: Tensor, box_upper: Tensor, lower: Tensor, upper: Tensor, leak: float
) -> tuple[Tensor, Tensor]:
    """The uncorrelated part of each unit after the ReLU, as an interval.

    Args:
        box_lower, box_upper: h - beta and h + beta of the pre-activation h + E e + beta b, any shape.
        lower, upper: its bounds, h -/+ (beta + sum |E|), the same shape.
        leak: the slope in [0, 1] below zero. LeakyReLU(z) = leak z + (1 - leak) ReLU(z), so the box is mixed likewise.

    Returns:
        The interval after a ReLU: unchanged where lower >= 0 (E stays), [0, upper] where unstable and 0 where
        inactive (E becomes 0); NaN where a bound is not finite.
    """
    active, absurd = lower >= 0, ~(lower.isfinite() & upper.isfinite())
    ends = box_lower.masked_fill(~active, 0.0), torch.where(active, box_upper, upper.clamp(min=0))
    lower, upper = ends[0].masked_fill(absurd, float("nan")), ends[1].masked_fill(absurd, float("nan"))
    return (
        (lower, upper) if leak == 0 else (leak * box_lower + (1 - leak) * lower, leak * box_upper + (1 - leak) * upper)
    )


hbox_relu = Op(
    "hbox_relu",
    "(Tensor box_lower, Tensor box_upper, Tensor lower, Tensor upper, float leak, str backend) -> (Tensor, Tensor)",
    hbox_relu_reference,
    lambda box_lower, box_upper, lower, upper, leak: (lower.new_empty(lower.shape), lower.new_empty(lower.shape)),
    checks.hbox_relu,
)
