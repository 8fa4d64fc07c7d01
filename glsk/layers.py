"""Layers that glsk adds to ``torch.nn``."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from glsk.arguments import FLOATS, describe, with_values


class Normalize(nn.Module):
    """Per-channel normalisation ``(x - mean) / std`` as the first layer of a network.

    With it inside the network, the perturbation size and the clipping range of a box stay in data units
    (paper, App. B.4: CIFAR-10 is normalised after the perturbation).

    Args:
        mean: one value a channel, in data units.
        std: one positive value a channel, in data units.

    Raises:
        TypeError: if they are no real numbers.
        ValueError: if the lengths differ, there is none, a value is not finite or a std is not positive.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float] | float, std: Sequence[float] | float) -> None:
        super().__init__()
        mean_, std_ = _channels("mean", mean), _channels("std", std)
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


def _channels(name: str, values: object) -> Tensor:
    """One value a channel, in the default dtype."""
    if isinstance(values, Tensor):
        found = with_values(
            f"Normalize: {name}",
            values,
            (*FLOATS, torch.float16, torch.bfloat16, torch.int32, torch.int64),
            "real numbers",
        )
        found = found.detach().to(torch.get_default_dtype(), copy=True)
    else:
        try:
            array = np.asarray(values)
        except ValueError:  # lists of differing lengths
            array = np.asarray(None)
        if array.dtype.kind not in "iuf":
            raise TypeError(f"Normalize: {name}: expected a real number a channel, got {describe(values)}")
        found = torch.tensor(array.astype(np.float64), dtype=torch.get_default_dtype())
    if found.numel() == 0:
        raise ValueError(f"Normalize: {name}: no channel is given")
    return found.reshape(-1)
