"""How much memory the CPU's kernel of ``branch_pass`` needs for itself."""

from collections.abc import Sequence

import torch

from glsk.geometry import Geometry

VECTORS = 128
"""Bytes that a unit takes for each number that is kept of it, at most: two vectors."""
FIELDS = 7
"""Numbers kept of a unit that has duals (csrc/cpu/branch_layer.h)."""
LANES = 16
"""Channels are padded to as many, at most."""


def branch_scratch(layers: Sequence[Geometry], dtype: torch.dtype) -> int:
    """Bytes that one thread allocates, at most (csrc/cpu/branch_tile.h, branch_walk.h): about 1 KB a hidden unit."""
    outputs, first = [layer.out_features for layer in layers], layers[0]
    hidden, widest = sum(outputs[:-1]), max(outputs)
    row = ((first.out_width - 1) * first.stride_width + first.kernel_width) * first.in_channels
    kept = sum(outputs) + FIELDS * hidden + 3 * widest + 1 + 4 * first.in_features + row + LANES
    taps = [layer.kernel_height * layer.kernel_width for layer in layers]
    weights = sum(n * layer.out_channels * layer.in_channels for n, layer in zip(taps, layers, strict=True))
    weights += taps[0] * first.out_channels * (first.in_channels + LANES)
    listed = max(n * max(layer.out_channels, layer.in_channels) for n, layer in zip(taps, layers, strict=True))
    numbers = sum(5 * (n + LANES) + layer.in_height + layer.in_width for n, layer in zip(outputs, layers, strict=True))
    lists = 4 * (numbers + 2 * listed) + 8 * outputs[0]
    return VECTORS * kept + dtype.itemsize * weights + lists + 34 * (hidden + widest) + 6 * sum(outputs)


def plane_scratch(layers: Sequence[Geometry], listed: int, dtype: torch.dtype) -> int:
    """As :func:`branch_scratch`, of ``plane_search`` with so many units listed a row (csrc/cpu/plane_search.h)."""
    first = layers[0]
    taps = first.in_channels * first.kernel_height * first.kernel_width
    units = min(first.out_features, LANES * listed)
    return branch_scratch(layers, dtype) + units * (VECTORS // 2 * (4 * taps + 2) + 8 * LANES) + 4 * first.out_features
