"""CROWN's lines: the lower one is the identity or zero, whichever leaves the smaller area (paper, §2.2, Fig. 3)."""

import torch
from torch import Tensor

from glsk.lines.relu import classify, stacked, upper_line


def adaptive(lower: Tensor, upper: Tensor) -> Tensor:
    """Bounds [.., n] -> lines [.., 4, n]: lower slope 1 where u > -l, else 0 (a tie goes to the zero line)."""
    units = classify(lower, upper)
    slope, intercept = upper_line(lower, upper, units)
    identity = units.active | (~units.inactive & (upper > -lower))
    return stacked(identity.to(lower.dtype), torch.zeros_like(lower), slope, intercept, units)
