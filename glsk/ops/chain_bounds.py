"""A whole relaxation as one op: the output's bounds, with no hidden bound leaving the core that computes it."""

from torch import Tensor

from glsk.geometry import decode, encode
from glsk.ops.crown_pass import crown_pass_reference, empty_bounds
from glsk.ops.hbox_pass import hbox_pass_reference
from glsk.ops.hbox_relu import hbox_relu_reference
from glsk.ops.ibp_affine import ibp_affine_reference
from glsk.ops.registry import Op

METHODS = ("IBP", "HBox", "CROWN-IBP", "CROWN")
"""The relaxations that this op computes."""


def chain_bounds_reference(
    x_L: Tensor,
    x_U: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    C: Tensor | None,
    geometry: list[int],
    method: str,
    prune: bool,
    bound_upper: bool,
) -> tuple[Tensor, Tensor]:
    """Bounds of the network's outputs (or of C times them) over the box, for every member and sample.

    The same as the relaxations of ``glsk.bounds``, which say it in terms of the other ops; for small networks this one
    spares the way to memory and back between them.

    Args:
        x_L, x_U: the box, [1, B, n].
        weights, biases: of all layers, [P, Cout, Cin, kh, kw] and [P, Cout].
        C: [B, S, outputs], or None for the outputs themselves; with it the last layer must be linear.
        geometry: all layers, encoded.
        method: one of :data:`METHODS` (paper, §2.2).
        prune: for CROWN: rows that interval arithmetic from the layer before proves stable keep the interval's bounds.
        bound_upper: False leaves out the upper bound, which comes back empty.

    Returns:
        lower, upper: [P, B, S], or [P, B, outputs].
    """
    if method == "HBox":
        return _hbox(x_L, x_U, weights, biases, C, geometry, bound_upper)
    layers = decode(geometry)
    last = len(layers) - 1
    lowers: list[Tensor] = []
    uppers: list[Tensor] = []
    lower, upper, relu = x_L, x_U, False
    for k in range(last):
        if method == "CROWN":
            known: tuple[Tensor | None, Tensor | None] = (None, None)
            if prune and relu and layers[k].relu:
                known = ibp_affine_reference(lower, upper, weights[k], biases[k], list(layers[k]), True)
            head = encode(layers[: k + 1])
            lower, upper = crown_pass_reference(
                x_L, x_U, weights[: k + 1], biases[: k + 1], lowers, uppers, None, *known, head, True
            )
        else:
            lower, upper = ibp_affine_reference(lower, upper, weights[k], biases[k], list(layers[k]), relu)
        relu = bool(layers[k].relu)
        lowers.append(lower)
        uppers.append(upper)
    if method != "IBP":
        return crown_pass_reference(x_L, x_U, weights, biases, lowers, uppers, C, None, None, geometry, bound_upper)
    if relu:
        lower, upper = lower.clamp(min=0), upper.clamp(min=0)
    return crown_pass_reference(
        lower, upper, weights[last:], biases[last:], [], [], C, None, None, list(layers[last]), bound_upper
    )


def _hbox(
    x_L: Tensor,
    x_U: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    C: Tensor | None,
    geometry: list[int],
    bound_upper: bool,
) -> tuple[Tensor, Tensor]:
    layers = decode(geometry)
    last = len(layers) - 1
    lowers: list[Tensor] = []
    uppers: list[Tensor] = []
    low = high = (x_L + x_U) / 2  # the uncorrelated part, an interval
    for k in range(last):
        low, high = ibp_affine_reference(low, high, weights[k], biases[k], list(layers[k]), False)
        head = encode(layers[: k + 1])
        radius = hbox_pass_reference(x_L, x_U, weights[: k + 1], lowers, uppers, None, head)
        lowers.append(low - radius)
        uppers.append(high + radius)
        if layers[k].relu:
            low, high = hbox_relu_reference(low, high, lowers[k], uppers[k])
    lower, upper = crown_pass_reference(
        low, high, weights[last:], biases[last:], [], [], C, None, None, list(layers[last]), bound_upper
    )
    radius = hbox_pass_reference(x_L, x_U, weights, lowers, uppers, C, geometry)
    return lower - radius, upper + radius if bound_upper else upper


def _fake(
    x_L: Tensor,
    x_U: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    C: Tensor | None,
    geometry: list[int],
    method: str,
    prune: bool,
    bound_upper: bool,
) -> tuple[Tensor, Tensor]:
    return empty_bounds(x_L, weights, C, geometry, bound_upper)


chain_bounds = Op(
    "chain_bounds",
    "(Tensor x_L, Tensor x_U, Tensor[] weights, Tensor[] biases, Tensor? C, int[] geometry, str method, "
    "bool prune, bool bound_upper, str backend) -> (Tensor, Tensor)",
    chain_bounds_reference,
    _fake,
)
