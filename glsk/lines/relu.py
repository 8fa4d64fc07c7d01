"""What every choice of lines shares: which units are stable, and the line above a ReLU."""

from typing import NamedTuple

import torch
from torch import Tensor


class Units(NamedTuple):
    """Masks of units, each of the bounds' shape; a unit is active, inactive or neither (unstable).

    ``finite`` is false where an end is infinite or NaN: such a unit has no lines, whatever its ends say of its sign.
    """

    active: Tensor
    inactive: Tensor
    finite: Tensor


def classify(lower: Tensor, upper: Tensor) -> Units:
    """Which units lie on one side of zero: bounds [.., n]."""
    active = lower >= 0
    return Units(active, ~active & (upper <= 0), lower.isfinite() & upper.isfinite())


def upper_line(lower: Tensor, upper: Tensor, units: Units) -> tuple[Tensor, Tensor]:
    """Slope and intercept of the least line above each ReLU: u / (u - l) and -l u / (u - l) where unstable.

    Args:
        lower, upper: bounds [.., n]; finite ones may be so large that u - l overflows.

    Returns:
        slope in [0, 1], intercept >= 0, of the bounds' shape.
    """
    one, zero = torch.ones_like(lower), torch.zeros_like(lower)
    # The inner wheres keep an unused division, and its gradient, finite. Only where u - l overflows are both ends
    # halved, which is not exact for the smallest numbers.
    unstable = ~(units.active | units.inactive) & units.finite
    low, high = torch.where(unstable, lower, -one), torch.where(unstable, upper, one)
    factor = torch.where((high - low).isfinite(), one, one / 2)
    fraction = high * factor / (high * factor - low * factor)
    slope = torch.where(unstable, fraction, torch.where(units.active, one, zero))
    return slope, torch.where(unstable, -fraction * low, zero)


def stacked(
    lower_slope: Tensor, lower_intercept: Tensor, upper_slope: Tensor, upper_intercept: Tensor, units: Units
) -> Tensor:
    """The four, broadcast, as lines [.., 4, n]; NaN for a unit whose bounds are not finite."""
    four = torch.broadcast_tensors(lower_slope, lower_intercept, upper_slope, upper_intercept)
    lines = torch.stack(four, dim=-2)
    return lines.masked_fill(~units.finite.unsqueeze(-2), float("nan"))
