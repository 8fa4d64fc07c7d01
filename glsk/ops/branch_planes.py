"""Planes above the units of the first layer: upper bounds of activations that are affine in the layer's inputs.

Over a box the best line above a ReLU of one number is the chord, but the ReLU of w x + b has better bounds in x: at the
corners of the box its concave envelope is the ReLU itself (Anderson et al., 2020).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from glsk.geometry import Geometry


@dataclass(frozen=True)
class Planes:
    """Of B subproblems' units of layer 0 an affine function of the inputs, each above the unit's activation.

    Attributes:
        weights, constants: [B, units, taps] and [B, units]; 0 where there is none.
        has: of which free units there is one, bool [B, 1, units].
        inputs: as :func:`taps`.
        number: of inputs.
    """

    weights: Tensor
    constants: Tensor
    has: Tensor
    inputs: Tensor
    number: int

    @classmethod
    def of(cls, planes: Tensor, free: Tensor, layer: Geometry) -> "Planes":
        """Args: planes [B, units, taps + 1], a constant last; which units are free [B, units]."""
        finite = planes[..., -1].isfinite()
        kept = torch.where(finite[..., None], planes, 0)
        return cls(kept[..., :-1], kept[..., -1], (finite & free)[:, None], taps(layer, planes), layer.in_features)

    def shared(self, lines: Tensor, duals: Tensor) -> Tensor:
        """Lines [B, S, 4, units] whose upper ones are left with their share."""
        part = torch.where(self.has, duals, 1)[..., None, :]
        return torch.cat((lines[..., :2, :].expand(*part.shape[:2], -1, -1), lines[..., 2:, :] * part), dim=-2)

    def spread(self, rows: Tensor, duals: Tensor) -> tuple[Tensor, Tensor]:
        """What planes make of rows [B, S, units]: rows of the inputs [1, B, S, n] and constants [1, B, S]."""
        shares = torch.where(self.has, rows.clamp(max=0) * (1 - duals), 0)
        terms = (shares[..., None] * self.weights[:, None]).flatten(2)
        found = shares.new_zeros(*shares.shape[:2], self.number + 1).index_add_(2, self.inputs.flatten(), terms)
        return found[None, ..., :-1], (shares * self.constants[:, None]).sum(-1)[None]

    def at(self, x: Tensor) -> Tensor:
        """The planes' values at inputs [B, S, n]: [B, S, units]."""
        return (F.pad(x, (0, 1))[..., self.inputs] * self.weights[:, None]).sum(-1) + self.constants[:, None]

    def mixed(self, lines: Tensor, x: Tensor, rows: Tensor, duals: Tensor) -> tuple[Tensor, Tensor]:
        """The shared upper bounds' values, given the lines' [B, S, units], and the bounds' slopes by the duals."""
        above = self.at(x)
        return (
            torch.where(self.has, duals * lines + (1 - duals) * above, lines),
            torch.where(self.has, rows.clamp(max=0) * (lines - above), 0),
        )


def taps(layer: Geometry, like: Tensor | None = None) -> Tensor:
    """Which input each weight of each unit meets, int64 [units, Cin kh kw]; ``in_features`` where it is padding."""
    image = torch.arange(1.0, layer.in_features + 1, dtype=torch.float64)
    padded = F.pad(
        image.view(1, layer.in_channels, layer.in_height, layer.in_width),
        (layer.pad_width, layer.pad_width, layer.pad_height, layer.pad_height),
    )
    kernel, stride = (layer.kernel_height, layer.kernel_width), (layer.stride_height, layer.stride_width)
    found = F.unfold(padded, kernel, stride=stride)[0].T.long() - 1
    found = found.masked_fill(found < 0, layer.in_features).repeat(layer.out_channels, 1)
    return found if like is None else found.to(like.device)
