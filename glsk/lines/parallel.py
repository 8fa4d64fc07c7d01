"""DeepZ's lines: the lower one is parallel to the upper one, through the origin (Singh et al., 2018)."""

import torch
from torch import Tensor

from glsk.lines.relu import classify, stacked, upper_line


def parallel(lower: Tensor, upper: Tensor) -> Tensor:
    """Bounds [.., n] -> lines [.., 4, n]: both slopes u / (u - l) where unstable."""
    units = classify(lower, upper)
    slope, intercept = upper_line(lower, upper, units)
    return stacked(slope, torch.zeros_like(lower), slope, intercept, units)
