"""alpha-CROWN's lines: any lower slope in [0, 1] through the origin, under CROWN's upper line (Xu et al., 2021)."""

import torch
from torch import Tensor

from glsk.lines.relu import classify, stacked, upper_line


def free(lower: Tensor, upper: Tensor, alpha: Tensor) -> Tensor:
    """Bounds [.., n] -> lines [.., 4, n].

    Args:
        alpha: lower slopes in [0, 1], of any shape that broadcasts with the bounds; read where a unit is unstable. A
            stable unit keeps its own line.
    """
    units = classify(lower, upper)
    slope, intercept = upper_line(lower, upper, units)
    chosen = torch.where(units.active | units.inactive, slope, alpha)
    return stacked(chosen, torch.zeros_like(lower), slope, intercept, units)
