"""Bounds of hidden units by passes whose slopes are optimised for each of them (``Roots.tightened``)."""

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from glsk.population import Population

if TYPE_CHECKING:
    from glsk.bounds.subproblems import Roots


def tightened(roots: "Roots", iterations: int, lr: float, images: Tensor | None, outward: Tensor | None) -> "Roots":
    """As ``Roots.tightened``."""
    lower, upper = roots.lower.clone(), roots.upper.clone()
    at = 0
    for k, layer in enumerate(roots.chain.layers[:-1]):
        n = layer.geometry.out_features
        part = slice(at, at + n)
        at += n
        if k == 0 or not layer.geometry.relu:  # bounds of an affine function of the box are exact
            continue
        unstable = (lower[:, part] < 0) & (upper[:, part] > 0)
        if images is not None:
            asked = torch.zeros(len(lower), dtype=torch.bool, device=lower.device)
            asked[images] = True
            unstable &= asked[:, None]
        to_layer = below(replace(roots, lower=lower, upper=upper), k, part.start)
        image, unit = unstable.nonzero(as_tuple=True)
        if not len(image):
            continue
        for i, u in zip(*(t.split(_at_once(roots, n)) for t in (image, unit)), strict=True):
            for side, ends in ((1.0, lower), (-1.0, upper)):
                C = lower.new_zeros(len(u), 1, n).scatter_(2, u[:, None, None], side)
                found = to_layer.bound(C, index=i, iterations=iterations, lr_alpha=lr, duals=False).lower[:, 0]
                found = found if outward is None else found - outward[i, u + part.start]
                now = ends[i, u + part.start]
                better = torch.maximum(found, now) if side > 0 else torch.minimum(-found, now)
                ends[i, u + part.start] = better
    return replace(roots, lower=lower, upper=upper)


def below(roots: "Roots", k: int, units: int) -> "Roots":
    """The network up to affine layer k, whose outputs are then that layer's, and its first ``units`` hidden units."""
    return replace(
        roots,
        chain=replace(roots.chain, layers=roots.chain.layers[: k + 1]),
        weights=Population(roots.weights.weights[: k + 1], roots.weights.biases[: k + 1]),
        lower=roots.lower[:, :units],
        upper=roots.upper[:, :units],
        columns=None,
    )


def _at_once(roots: "Roots", outputs: int) -> int:
    """How many rows of a layer of so many outputs a quarter of the memory limit holds."""
    return max(1, roots.memory_limit // (4 * outputs * roots.x_L.element_size()))
