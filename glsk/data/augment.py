"""Random flips and crops, as the paper does for CIFAR-10 (App. B.4)."""

import torch
from torch import Tensor
from torch.nn import functional

from glsk.transfer import to_device


def augment(x: Tensor, generator: torch.Generator, padding: int = 2) -> Tensor:
    """Flip each image left-right with probability 1/2, pad it with zeros, and crop it back at a random offset.

    Args:
        x: images [B, C, H, W], a floating dtype.
        generator: source of the randomness, on the CPU.
        padding: pixels added at every margin, at least 0.

    Returns:
        A new tensor of x's shape, dtype and device. The same generator state gives the same images.
    """
    batch, _, height, width = x.shape
    flip = to_device(torch.rand(batch, generator=generator) < 0.5, x.device)
    offset = to_device(torch.randint(0, 2 * padding + 1, (2, batch), generator=generator), x.device)
    x = torch.where(flip[:, None, None, None], x.flip(3), x)
    padded = functional.pad(x, (padding,) * 4)
    rows = offset[0, :, None] + torch.arange(height, device=x.device)
    columns = offset[1, :, None] + torch.arange(width, device=x.device)
    sample = torch.arange(batch, device=x.device)
    # Advanced indices split by a slice move to the front: [B, H, W, C].
    return padded[sample[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()
