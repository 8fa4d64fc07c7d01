"""Layers that glsk adds to ``torch.nn``."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalize(nn.Module):
    """Per-channel normalisation ``(x - mean) / std`` as the first layer of a network.

    With it inside the network, the perturbation size and the clipping range of a box stay in data units
    (paper, App. B.4: CIFAR-10 is normalised after the perturbation).

    Args:
        mean: one value a channel, in data units.
        std: one positive value a channel, in data units.

    Raises:
        ValueError: if the lengths differ, a value is not finite or a std is not positive.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float] | float, std: Sequence[float] | float) -> None:
        super().__init__()
        mean_ = torch.as_tensor(mean, dtype=torch.get_default_dtype()).reshape(-1)
        std_ = torch.as_tensor(std, dtype=torch.get_default_dtype()).reshape(-1)
        if mean_.shape != std_.shape:
            raise ValueError(f"Normalize: mean has {mean_.numel()} channels, std has {std_.numel()}")
        if not (mean_.isfinite().all() and std_.isfinite().all() and (std_ > 0).all()):
            raise ValueError("Normalize: mean and std must be finite, and std positive")
        self.register_buffer("mean", mean_)
        self.register_buffer("std", std_)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [..., C, H, W] or [..., n] (one channel) to the same shape."""
        shape = (-1, 1, 1) if x.dim() > 2 else (-1,)
        return (x - self.mean.view(shape)) / self.std.view(shape)

    def extra_repr(self) -> str:
        return f"mean={self.mean.tolist()}, std={self.std.tolist()}"
