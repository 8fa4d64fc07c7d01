"""A whole relaxation as one op: the output's bounds, with no hidden bound leaving the core that computes it."""

import importlib
from typing import Any

import torch
from torch import Tensor

from glsk.geometry import decode
from glsk.ops import checks
from glsk.ops.crown_pass import empty_bounds
from glsk.ops.registry import Op

METHODS = ("IBP", "HBox", "CROWN-IBP", "CROWN", "DeepZ")
"""The relaxations that this op computes, in the order of the enum in csrc."""


def chain_bounds_reference(
    x_L: Tensor,
    x_U: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    C: Tensor | None,
    geometry: list[int],
    leaks: list[float],
    method: str,
    prune: bool,
    bound_upper: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Bounds of the network's outputs (or of C times them) over the box, for every member and sample.

    These are the relaxations of ``glsk.bounds``; in one op, a small network is spared the way to memory and back
    between the others.

    Args:
        x_L, x_U: the box, [1, B, n].
        weights, biases: of all layers, [P, Cout, Cin, kh, kw] and [P, Cout].
        C: [B, S, outputs], or None for the outputs themselves; with it the last layer must be linear.
        geometry: all layers, encoded.
        leaks: of all layers, the slope in [0, 1] below zero of the activation that follows; 0 is a ReLU.
        method: one of :data:`METHODS` (paper, §2.2).
        prune: for CROWN and DeepZ: rows that interval arithmetic from the layer before proves stable keep the
            interval's bounds.
        bound_upper: False leaves out the upper bound, which comes back empty.
        keep: whether the hidden bounds are returned.

    Returns:
        lower, upper: [P, B, S], or [P, B, outputs].
        hidden: [P, B, 2, U], lower and upper bounds of the outputs of all layers but the last, one after the other (0
            for a layer that no activation follows); empty without ``keep``.
    """
    relaxations: Any = importlib.import_module("glsk.bounds")  # which is written in terms of the ops of this package
    layers = decode(geometry)
    population = importlib.import_module("glsk.population").Population(tuple(weights), tuple(biases))
    query = relaxations.Query(
        tuple(layers), population, x_L, x_U, C, "reference", prune, bound_upper, leaks=tuple(leaks)
    )
    *inner, (lower, upper) = relaxations.get(method)(query)
    if not bound_upper:
        upper = lower.new_empty(0)  # a method may have it for nothing
    if not keep:
        return lower, upper, lower.new_empty(0)
    shape = (len(lower), lower.shape[1], 2)
    parts = [
        torch.stack(bounds, dim=2) if layer.relu else lower.new_zeros(*shape, layer.out_features)
        for layer, bounds in zip(layers, inner, strict=False)
    ]
    return lower, upper, torch.cat(parts, dim=3) if parts else lower.new_empty(*shape, 0)


def _fake(
    x_L: Tensor,
    x_U: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    C: Tensor | None,
    geometry: list[int],
    leaks: list[float],
    method: str,
    prune: bool,
    bound_upper: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return *empty_bounds(x_L, weights, C, geometry, bound_upper), empty_hidden(x_L, weights, geometry, keep)


def empty_hidden(x_L: Tensor, weights: list[Tensor], geometry: list[int], keep: bool) -> Tensor:
    """Uninitialised hidden bounds [P, B, 2, U]; without ``keep``, nothing."""
    units = sum(layer.out_features for layer in decode(geometry)[:-1])
    return x_L.new_empty((weights[0].shape[0], x_L.shape[1], 2, units) if keep else 0)


def _check(*operands: Any) -> None:
    checks.chain_bounds(*operands)
    if operands[7] not in METHODS:
        raise ValueError(f"chain_bounds: method: unknown {operands[7]!r}; known: {', '.join(METHODS)}")


chain_bounds = Op(
    "chain_bounds",
    "(Tensor x_L, Tensor x_U, Tensor[] weights, Tensor[] biases, Tensor? C, int[] geometry, float[] leaks, str method, "
    "bool prune, bool bound_upper, bool keep, str backend) -> (Tensor, Tensor, Tensor)",
    chain_bounds_reference,
    _fake,
    _check,
    saves_outputs=True,
)
