"""Whether an input really has unsafe outputs: in real arithmetic, which float64 alone does not say near the border."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from glsk.geometry import Geometry
from glsk.network import Chain
from glsk.ops import affine
from glsk.population import Population
from glsk.verify.magnitudes import Magnitudes
from glsk.verify.rounding import Rounding

if TYPE_CHECKING:
    from glsk.module import BoundedModule

Whole = np.ndarray[Any, Any]
"""Of Python's integers."""

MOST_PRODUCTS = 2_000_000
"""Of a network that is evaluated in whole numbers: a second or so."""


@torch.no_grad()
def unsafe(bounded: "BoundedModule", points: Tensor, A: Tensor, b: Tensor) -> Tensor:
    """Of which points [N, *input_shape] it is certain that A f(x) <= b in every row, for the network as stored: [N].

    The outputs are bounded at the point and what rounding may have done is added; where that leaves it open, small
    networks without normalisation are evaluated exactly.

    Args:
        bounded: the network, float64.
        points: float64, in data units.
        A, b: [N, S, K] and [N, S], float64.
    """
    _, upper = bounded.compute_bounds(x_L=points, x_U=points, C=A, method="IBP", check_finite=False)
    slack = Rounding(bounded, points, points).rows(A)
    certain = (upper + slack <= b) & upper.isfinite()
    found = certain.all(dim=1)
    net = Magnitudes.of(bounded, points)
    if exactly_evaluated(net.chain):
        for i in (~found & (upper - slack <= b).all(dim=1)).nonzero()[:, 0].tolist():
            found[i] = _met(exact_outputs(net.chain, net.population, points[i]), A[i], b[i])
    return found


def exactly_evaluated(chain: Chain) -> bool:
    """Whether whole numbers say what a network's outputs are: no square root, no division, and few products."""
    fixed = chain.normalize is not None or any(
        layer.weight is None or layer.batch_norm is not None for layer in chain.layers
    )
    products = sum(g.out_features * g.in_channels * g.kernel_height * g.kernel_width for g in chain.geometry)
    return not fixed and products <= MOST_PRODUCTS


def exact_outputs(chain: Chain, population: Population, x: Tensor) -> tuple[list[int], int]:
    """The outputs as whole numbers, and the power of 2 by which they are to be divided."""
    values, power = _whole(x.flatten().double())
    for k, layer in enumerate(chain.layers):
        weight, more = _whole(population.weights[k][0].flatten(1))
        bias, shift = _whole(affine.per_unit(population.biases[k], layer.geometry)[0])
        values, power = _layer(values, weight, layer.geometry), power + more
        least = max(power, shift)
        values = values * (1 << (least - power)) + bias * (1 << (least - shift))
        power = least
        if layer.geometry.relu:
            slope, more = _whole(torch.tensor([layer.leak], dtype=torch.float64))
            values = np.array([v << more if v >= 0 else v * slope[0] for v in values], dtype=object)
            power += more
    return list(values), power


def _layer(values: Whole, weight: Whole, g: Geometry) -> Whole:
    image = np.zeros((g.in_channels, g.in_height + 2 * g.pad_height, g.in_width + 2 * g.pad_width), dtype=object)
    inner = slice(g.pad_height, g.pad_height + g.in_height), slice(g.pad_width, g.pad_width + g.in_width)
    image[:, inner[0], inner[1]] = values.reshape(g.in_channels, g.in_height, g.in_width)
    found = np.empty((g.out_channels, g.out_height, g.out_width), dtype=object)
    for y in range(g.out_height):
        for x in range(g.out_width):
            top, left = y * g.stride_height, x * g.stride_width
            patch = image[:, top : top + g.kernel_height, left : left + g.kernel_width]
            found[:, y, x] = weight @ patch.reshape(-1)
    return found.reshape(-1)


def _whole(values: Tensor) -> tuple[Whole, int]:
    """Float64 values as whole numbers over a common power of 2."""
    ratios = [value.as_integer_ratio() for value in values.flatten().tolist()]
    power = max((denominator.bit_length() - 1 for _, denominator in ratios), default=0)
    whole = [numerator << (power - denominator.bit_length() + 1) for numerator, denominator in ratios]
    found = np.empty(len(whole), dtype=object)
    found[:] = whole
    return found.reshape(tuple(values.shape)), power


def _met(outputs: tuple[list[int], int], A: Tensor, b: Tensor) -> bool:
    values, power = outputs
    rows, more = _whole(A)
    ends, shift = _whole(b)
    sums = rows @ np.array(values, dtype=object)
    return all(int(s) << shift <= int(e) << (power + more) for s, e in zip(sums, ends, strict=True))
