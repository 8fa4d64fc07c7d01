"""A network in absolute values, and how many roundings lie on the way through it: what every slack is made of."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from glsk import population
from glsk.geometry import Geometry
from glsk.network import Affine, Chain
from glsk.ops import affine
from glsk.population import Population
from glsk.verify.norms import spectral

if TYPE_CHECKING:
    from glsk.module import BoundedModule

UNIT = 2.0**-53
"""Of float64: a result is off by at most this share of it."""

TINY, SMALL = 2.0**-960, 2.0**-1000
"""Beside any number, and beside any sum: above what underflow can cost, flushed to zero (2^-1022) or not."""

GROWTH = 1 + 2.0**-20
"""More than the rounding of a layer's magnitudes here, and of a computed bound against its magnitude."""

LAYER_STEPS, LINE_STEPS = 64, 16
"""Roundings of a layer that do not depend on its size (lines, a folded BatchNorm, a pool's divisor, a leak), and of a
line alone; docs/soundness.md counts fewer."""

MOST_STEPS = 2**31


@dataclass(frozen=True)
class Magnitudes:
    """A network of float64 weights in absolute values.

    Attributes:
        weights: |W| [1, Cout, Cin, kh, kw] a layer; biases: above |b|, [units] a layer.
        population: the weights themselves, folded.
    """

    chain: Chain
    population: Population
    weights: list[Tensor]
    biases: list[Tensor]
    _norms: dict[int, float] = field(default_factory=dict)

    @classmethod
    def of(cls, bounded: "BoundedModule", x: Tensor) -> "Magnitudes":
        """Raises ValueError where the network or x is not float64."""
        if x.dtype != torch.float64:
            raise ValueError(f"x_L: rounding is bounded in float64 only, got {x.dtype}")
        chain = bounded.chain
        with torch.no_grad():
            named = population.resolve(chain, bounded.net, None)
            folded = population.assemble(chain, named)
            if folded.weights[0].dtype != torch.float64:
                raise ValueError(f"the network is {folded.weights[0].dtype}; rounding is bounded in float64 only")
            biases = [
                affine.per_unit(bias.abs() + _shift(layer, named) + TINY, layer.geometry)[0]
                for bias, layer in zip(folded.biases, chain.layers, strict=True)
            ]
            return cls(chain, folded, [weight.abs() + TINY for weight in folded.weights], biases)

    @property
    def layers(self) -> tuple[Affine, ...]:
        return self.chain.layers

    @property
    def steps(self) -> int:
        """Roundings on the way to any bound: see :func:`steps`."""
        return steps(self.chain.geometry)

    @property
    def input_error(self) -> float:
        """What the normalised ends of a box are off by, relatively."""
        return 0.0 if self.chain.normalize is None else 4 * UNIT

    def row_norms(self, k: int) -> Tensor:
        """[units]: above the 2-norm of every unit's weights."""
        found = self.weights[k].flatten(2).norm(dim=2) * GROWTH
        return affine.per_unit(found, self.layers[k].geometry)[0]

    def spectral(self, k: int) -> float:
        """Above the spectral norm of layer k."""
        if k not in self._norms:
            self._norms[k] = spectral(self.population.weights[k][0], self.layers[k].geometry)
        return self._norms[k]


def gamma(steps: float) -> float:
    """steps u / (1 - steps u): what so many roundings in a row can change a product by, relatively."""
    if steps > MOST_STEPS:
        return math.inf
    return steps * UNIT / (1 - steps * UNIT) * GROWTH


def steps(layers: tuple[Geometry, ...]) -> int:
    """More than the roundings on the way from any number to any bound of a chain, in any order of summation."""
    first = layers[0]
    total = first.in_features + LAYER_STEPS
    for layer in layers:
        taps = layer.kernel_height * layer.kernel_width
        total += max(layer.in_channels, layer.out_channels) * taps + layer.out_features + LAYER_STEPS
    return total


def layer_steps(layer: Geometry) -> int:
    """More than the roundings in one layer: of sums over what a unit reads and over what reads a unit."""
    taps = layer.kernel_height * layer.kernel_width
    return (layer.in_channels + layer.out_channels) * taps + LAYER_STEPS


def plane_steps(layer: Geometry) -> int:
    """More than the roundings that planes above the units of a layer add to :func:`layer_steps`."""
    return layer.out_channels * layer.kernel_height * layer.kernel_width + LAYER_STEPS


def _shift(layer: Affine, named: Mapping[str, Tensor]) -> Tensor | float:
    """What a folded BatchNorm adds to the magnitude of a bias: its own bias, which may cancel the rest."""
    norm = layer.batch_norm
    return 0.0 if norm is None or norm.bias is None else 2 * named[norm.bias].abs()


def total(slack: Tensor) -> Tensor:
    """With infinity where an overflow leaves no number."""
    return slack.nan_to_num(nan=math.inf, posinf=math.inf)
