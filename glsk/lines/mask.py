"""What HBox keeps exactly: stable-active units; of the others nothing (paper, §2.2, HBox).

These lines do not enclose the ReLU of an unstable unit: HBox adds what they lose as a box of its own.
"""

import torch
from torch import Tensor

from glsk.lines.relu import classify, stacked


def mask(lower: Tensor, upper: Tensor) -> Tensor:
    """Bounds [.., n] -> lines [.., 4, n]: both slopes 1 where lower >= 0, else 0; no intercepts."""
    units = classify(lower, upper)
    slope, zero = units.active.to(lower.dtype), torch.zeros_like(lower)
    return stacked(slope, zero, slope, zero, units)
