"""Intervals: centre and radius that no finite ends overflow, and both ends through an activation."""

import torch
from torch import Tensor


def center(lower: Tensor, upper: Tensor) -> Tensor:
    """(l + u) / 2."""
    return lower / 2 + upper / 2


def radius(lower: Tensor, upper: Tensor) -> Tensor:
    """(u - l) / 2."""
    return upper / 2 - lower / 2


def activation(lower: Tensor, upper: Tensor, leak: float = 0.0) -> tuple[Tensor, Tensor]:
    """The ends after a ReLU, or after an activation of slope ``leak`` in [0, 1] below zero, which increases.

    An interval with an infinite end comes of an overflow and may be false: it gives NaN, not the 0 of a dead unit.
    """
    absurd = ~(lower.isfinite() & upper.isfinite())
    ends = [end.clamp(min=0) if leak == 0 else torch.where(end >= 0, end, leak * end) for end in (lower, upper)]
    return ends[0].masked_fill(absurd, float("nan")), ends[1].masked_fill(absurd, float("nan"))


def sound(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """The bounds, NaN where an overflow has made them absurd: nothing finite lies above +inf or below -inf."""
    inf, nan = float("inf"), float("nan")
    return lower.masked_fill(lower == inf, nan), upper.masked_fill(upper == -inf, nan)
