"""A back-substitution pass: one layer's pre-activations, or C, bounded by linear functions of the input.

Which lines stand for the activations is an argument, so CROWN, DeepZ, alpha-CROWN and HBox's exact part are one op
(paper, §2.2).
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from glsk import lines as lines_of
from glsk.geometry import Geometry, decode
from glsk.ops import affine, checks, interval
from glsk.ops.registry import Op


def crown_pass_reference(
    x_L: Tensor,
    x_U: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    lowers: list[Tensor],
    uppers: list[Tensor],
    lines: list[Tensor],
    C: Tensor | None,
    known_lower: Tensor | None,
    known_upper: Tensor | None,
    geometry: list[int],
    leaks: list[float],
    rule: str,
    bound_upper: bool,
) -> tuple[Tensor, Tensor]:
    """Bounds of the last given layer's outputs (or of C times them) over the box, for every member and sample.

    Args:
        x_L, x_U: the box, [P, B, n] or [1, B, n] shared by all members.
        weights, biases: of layers 0..k, [P, Cout, Cin, kh, kw] and [P, Cout].
        lowers, uppers: bounds of the outputs of layers 0..k-1, [P, B, out]; empty where they are not read: of a layer
            that no activation follows, or that has lines.
        lines: of the activations after layers 0..k-1, [P or 1, B or 1, R or 1, 4, out] (see ``glsk.lines``), used as
            they are; empty where ``rule`` makes them of the bounds. R is the number of rows.
        C: [B, S, out of layer k], or None for the outputs themselves.
        known_lower, known_upper: sound bounds of the outputs [P, B, out], or None. A row that they prove stable
            (lower >= 0 or upper <= 0) is pruned: it keeps them. Only without C.
        geometry: layers 0..k, encoded.
        leaks: of layers 0..k, the slope in [0, 1] below zero of the activation that follows; 0 is a ReLU.
        rule: "adaptive", "parallel" or "mask".
        bound_upper: False leaves out the upper bound, which comes back empty.

    Returns:
        lower, upper: [P, B, S], or [P, B, out]; NaN where an infinite bound of a hidden unit is read.
    """
    layers = decode(geometry)
    chain = Chain(weights, biases, layers, pass_lines(layers, lowers, uppers, lines, leaks, rule))
    rows = first_rows(weights[-1], C, layers[-1]).expand(weights[0].shape[0], x_L.shape[1], -1, -1)
    lower = chain.lower(rows, x_L, x_U)
    upper = -chain.lower(-rows, x_L, x_U) if bound_upper else lower.new_empty(0)
    return keep_known(*interval.sound(lower, upper), known_lower, known_upper)


def keep_known(
    lower: Tensor, upper: Tensor, known_lower: Tensor | None, known_upper: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The bounds, but those that are known where these prove an activation stable; an empty ``upper`` stays so."""
    if known_lower is None or known_upper is None:
        return lower, upper
    stable = (known_lower >= 0) | (known_upper <= 0)
    return torch.where(stable, known_lower, lower), torch.where(stable, known_upper, upper) if len(upper) else upper


def pass_lines(
    layers: Sequence[Geometry],
    lowers: list[Tensor],
    uppers: list[Tensor],
    lines: list[Tensor],
    leaks: Sequence[float],
    rule: str,
) -> list[Tensor | None]:
    """Lines [.., .., R or 1, 4, n] of layers 0..k-1, given or made; None where no activation follows."""
    return [
        None if not layer.relu else given if given.numel() else lines_of.make(rule, lower, upper, leak).unsqueeze(2)
        for layer, lower, upper, given, leak in zip(layers, lowers, uppers, lines, leaks, strict=False)
    ]


def first_rows(weight: Tensor, C: Tensor | None, layer: Geometry) -> Tensor:
    """The rows as functions of layer k's output: [1, 1 or B, R, out]."""
    if C is None:
        return torch.eye(layer.out_features, dtype=weight.dtype, device=weight.device)[None, None]
    return C[None]


class Chain:
    """Layers 0..k and the lines between them, down which rows are substituted."""

    def __init__(
        self, weights: list[Tensor], biases: list[Tensor], layers: list[Geometry], lines: list[Tensor | None]
    ) -> None:
        self.weights, self.biases, self.layers, self.lines = weights, biases, layers, lines

    def lower(self, rows: Tensor, x_L: Tensor, x_U: Tensor) -> Tensor:
        """Lower bounds [P, B, R] of rows; an upper bound is the negated lower bound of the negated row."""
        A, b = self.linear(rows)
        return concretise(A, b, x_L, x_U)

    def linear(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """A [P, B, R, n] and b [P, B, R], for rows [P, B, R, out]: A x + b is below the row on all of the box."""
        A, b = rows, rows.new_zeros(())
        for _, A, b in self.walk(rows):  # noqa: B007  the last is wanted
            pass
        return A, b

    def walk(self, rows: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Layer by layer from the top: (k, the rows as functions of the inputs of layer k, their constants so far)."""
        constant = rows.new_zeros(())
        for k in reversed(range(len(self.layers))):
            lines = self.lines[k] if k < len(self.lines) else None
            if lines is not None:
                rows, gain = through(rows, lines)
                constant = constant + gain
            bias = affine.per_unit(self.biases[k], self.layers[k])
            constant = constant + (rows @ bias[:, None, :, None]).squeeze(-1)
            rows = affine.transposed(rows, self.weights[k], self.layers[k])
            yield k, rows, constant


def through(rows: Tensor, lines: Tensor) -> tuple[Tensor, Tensor]:
    """Rows [P, B, R, n] on the outputs of activations, as lower bounds on their inputs; what their constants gain."""
    lower_slope, lower_intercept, upper_slope, upper_intercept = lines.unbind(-2)
    positive, negative = rows.clamp(min=0), rows.clamp(max=0)
    gain = _dot(positive, lower_intercept) + _dot(negative, upper_intercept)
    return positive * lower_slope + negative * upper_slope, gain


def _dot(rows: Tensor, values: Tensor) -> Tensor:
    """Rows [P, B, R, n] times values [P or 1, B or 1, R or 1, n]: [P, B, R]."""
    if values.shape[2] == 1:
        return (rows @ values.mT).squeeze(-1)
    return (rows * values).sum(-1)


Function = tuple[Tensor, Tensor]
"""A [P, B, R, n] and b [P, B, R] of A x + b."""

Linear = tuple[Function, Function | None]
"""A function below every row on all of the box, and one above (None where it is not wanted)."""


def linear_functions(
    x_L: Tensor,
    x_U: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    lowers: list[Tensor],
    uppers: list[Tensor],
    lines: list[Tensor],
    C: Tensor | None,
    known_lower: Tensor | None,
    known_upper: Tensor | None,
    geometry: list[int],
    leaks: list[float],
    rule: str,
    bound_upper: bool,
) -> Linear:
    """The linear functions whose least and greatest values a pass of these arguments returns, in plain PyTorch."""
    layers = decode(geometry)
    chain = Chain(weights, biases, layers, pass_lines(layers, lowers, uppers, lines, leaks, rule))
    rows = first_rows(weights[-1], C, layers[-1]).expand(weights[0].shape[0], x_L.shape[1], -1, -1)
    return chain.linear(rows), negated(chain.linear(-rows)) if bound_upper else None


def negated(function: Function) -> Function:
    """-A x - b."""
    return -function[0], -function[1]


def least_and_greatest(functions: Linear, x_L: Tensor, x_U: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds of linear functions over the box; empty ones of one that is not there."""
    below, above = functions
    lower = concretise(*below, x_L, x_U)
    upper = lower.new_empty(0) if above is None else -concretise(*negated(above), x_L, x_U)
    return interval.sound(lower, upper)


def concretise(A: Tensor, b: Tensor, x_L: Tensor, x_U: Tensor) -> Tensor:
    """The least value of A x + b over the box: [P, B, R]."""
    center, radius = interval.center(x_L, x_U), interval.radius(x_L, x_U)
    return b + (A @ center[..., None] - A.abs() @ radius[..., None]).squeeze(-1)


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
    lines: list[Tensor],
    C: Tensor | None,
    known_lower: Tensor | None,
    known_upper: Tensor | None,
    geometry: list[int],
    leaks: list[float],
    rule: str,
    bound_upper: bool,
) -> tuple[Tensor, Tensor]:
    return empty_bounds(x_L, weights, C, geometry, bound_upper)


SCHEMA = (
    "Tensor x_L, Tensor x_U, Tensor[] weights, Tensor[] biases, Tensor[] lowers, Tensor[] uppers, Tensor[] lines, "
    "Tensor? C, Tensor? known_lower, Tensor? known_upper, int[] geometry, float[] leaks, str rule, bool bound_upper"
)

crown_pass = Op(
    "crown_pass", f"({SCHEMA}, str backend) -> (Tensor, Tensor)", crown_pass_reference, _fake, checks.crown_pass
)
