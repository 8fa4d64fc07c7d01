"""A DeepPoly / CROWN pass: one layer's pre-activations, or C, bounded by back-substitution to the box (paper, §2.2)."""

import torch
from torch import Tensor

from glsk.geometry import Geometry, decode
from glsk.ops import affine
from glsk.ops.registry import Op
from glsk.ops.relu_relaxation import relu_relaxation_reference


def crown_pass_reference(
    x_L: Tensor,
    x_U: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    lowers: list[Tensor],
    uppers: list[Tensor],
    C: Tensor | None,
    known_lower: Tensor | None,
    known_upper: Tensor | None,
    geometry: list[int],
    bound_upper: bool,
) -> tuple[Tensor, Tensor]:
    """Bounds of the last given layer's outputs (or of C times them) over the box, for every member and sample.

    Args:
        x_L, x_U: the box, [P, B, n] or [1, B, n] shared by all members.
        weights, biases: of layers 0..k, [P, Cout, Cin, kh, kw] and [P, Cout].
        lowers, uppers: bounds of the outputs of layers 0..k-1, [P, B, out]; of a layer that no ReLU follows, empty.
        C: [B, S, out of layer k], or None for the outputs themselves.
        known_lower, known_upper: sound bounds of the outputs [P, B, out], or None. A row that they prove stable
            (lower >= 0 or upper <= 0) is pruned: it keeps them. Only without C.
        geometry: layers 0..k, encoded.
        bound_upper: False leaves out the upper bound, which comes back empty.

    Returns:
        lower, upper: [P, B, S], or [P, B, out].
    """
    layers = decode(geometry)
    rows = first_rows(weights[-1], C, layers[-1])
    lower = _one_side(rows, x_L, x_U, weights, biases, lowers, uppers, layers)
    upper = -_one_side(-rows, x_L, x_U, weights, biases, lowers, uppers, layers) if bound_upper else lower.new_empty(0)
    if known_lower is not None and known_upper is not None:
        stable = (known_lower >= 0) | (known_upper <= 0)
        lower = torch.where(stable, known_lower, lower)
        upper = torch.where(stable, known_upper, upper) if bound_upper else upper
    return lower, upper


def first_rows(weight: Tensor, C: Tensor | None, layer: Geometry) -> Tensor:
    """The rows as functions of layer k's output: [1, 1 or B, R, out]."""
    if C is None:
        return torch.eye(layer.out_features, dtype=weight.dtype, device=weight.device)[None, None]
    return C[None]


def _one_side(
    rows: Tensor,
    x_L: Tensor,
    x_U: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    lowers: list[Tensor],
    uppers: list[Tensor],
    layers: list[Geometry],
) -> Tensor:
    """Lower bounds of ``rows``; an upper bound is the negated lower bound of the negated row."""
    members, samples = weights[0].shape[0], x_L.shape[1]
    rows = rows.expand(members, samples, -1, -1)
    constant = rows.new_zeros(())
    for k in reversed(range(len(layers))):
        if k < len(layers) - 1 and layers[k].relu:
            lower_slope, upper_slope, intercept = relu_relaxation_reference(lowers[k], uppers[k])
            positive, negative = rows.clamp(min=0), rows.clamp(max=0)
            constant = constant + (negative @ intercept[..., None]).squeeze(-1)
            rows = positive * lower_slope[:, :, None] + negative * upper_slope[:, :, None]
        constant = constant + (rows @ affine.per_unit(biases[k], layers[k])[:, None, :, None]).squeeze(-1)
        rows = affine.transposed(rows, weights[k], layers[k])
    center, radius = (x_L + x_U) / 2, (x_U - x_L) / 2
    return constant + (rows @ center[..., None] - rows.abs() @ radius[..., None]).squeeze(-1)


def empty_bounds(
    x_L: Tensor, weights: list[Tensor], C: Tensor | None, geometry: list[int], bound_upper: bool
) -> tuple[Tensor, Tensor]:
    """Uninitialised lower and upper bounds of the last layer's outputs, or of C times them: [P, B, S]."""
    rows = decode(geometry)[-1].out_features if C is None else C.shape[1]
    shape = (weights[0].shape[0], x_L.shape[1], rows)
    return x_L.new_empty(shape), x_L.new_empty(shape if bound_upper else 0)


def _fake(
    x_L: Tensor,
    x_U: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    lowers: list[Tensor],
    uppers: list[Tensor],
    C: Tensor | None,
    known_lower: Tensor | None,
    known_upper: Tensor | None,
    geometry: list[int],
    bound_upper: bool,
) -> tuple[Tensor, Tensor]:
    return empty_bounds(x_L, weights, C, geometry, bound_upper)


crown_pass = Op(
    "crown_pass",
    "(Tensor x_L, Tensor x_U, Tensor[] weights, Tensor[] biases, Tensor[] lowers, Tensor[] uppers, Tensor? C, "
    "Tensor? known_lower, Tensor? known_upper, int[] geometry, bool bound_upper, str backend) -> (Tensor, Tensor)",
    crown_pass_reference,
    _fake,
)
