"""A whole relaxation as one op: the output's bounds, with no hidden bound leaving the core that computes it."""

from torch import Tensor

from glsk.geometry import decode, encode
from glsk.ops.crown_pass import crown_pass_reference, empty_bounds
from glsk.ops.ibp_affine import ibp_affine_reference
from glsk.ops.registry import Op

METHODS = ("IBP", "CROWN-IBP", "CROWN")
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
        method: "IBP", "CROWN-IBP" or "CROWN" (paper, §2.2).
        prune: for CROWN: rows that interval arithmetic from the layer before proves stable keep the interval's bounds.
        bound_upper: False leaves out the upper bound, which comes back empty.

    Returns:
        lower, upper: [P, B, S], or [P, B, outputs].
    """
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
