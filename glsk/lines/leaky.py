"""From a ReLU's lines to a leaky one's: LeakyReLU(z) = k z + (1 - k) ReLU(z)."""

import torch
from torch import Tensor


def leaky(lines: Tensor, leak: float) -> Tensor:
    """Lines [.., 4, n] of a ReLU as those of the activation of slope ``leak`` in [0, 1] below zero."""
    if leak == 0:
        return lines
    is_slope = 1 - torch.arange(4, dtype=lines.dtype, device=lines.device) % 2
    return (1 - leak) * lines + leak * is_slope[:, None]
