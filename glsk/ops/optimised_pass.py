"""A pass whose lower lines are chosen by gradient ascent on its own bounds (alpha-CROWN; Xu et al., 2021).

The gradient needs no tape. A lower bound is the value of the row's own linear network, in which every activation is the
line that the sign of its coefficient picks, at the corner of the box that the signs of the last coefficients pick; so
its derivative by the slope of a line is that coefficient times the value that reaches the line.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from glsk import lines as lines_of
from glsk.geometry import decode
from glsk.ops import affine, checks, interval
from glsk.ops.crown_pass import (
    SCHEMA,
    Chain,
    Function,
    Linear,
    concretise,
    empty_bounds,
    first_rows,
    keep_known,
    negated,
)
from glsk.ops.registry import Op

DECAY = 0.98
"""Of the step from one iteration to the next, as auto_LiRPA's."""

_BETAS, _EPSILON = (0.9, 0.999), 1e-8  # Adam's


def optimised_pass_reference(
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
    iterations: int,
    lr: float,
) -> tuple[Tensor, Tensor]:
    """As ``glsk.ops.crown_pass``, with every unstable unit's lower slope chosen for each row and side by Adam.

    Args:
        rule: whose lower slopes the ascent starts from; the upper lines are CROWN's.
        lines: given ones stay as they are.
        iterations: how often the bounds are computed; 1 is the plain pass.
        lr: of Adam, times 0.98 after every iteration.
        The others: as ``glsk.ops.crown_pass``.

    Returns:
        lower, upper: [P, B, S], or [P, B, out]: of every row the best bound met, so never looser than the first. They
        have no gradient.
    """
    ascent = _Ascent(weights, biases, lowers, uppers, lines, geometry, leaks, rule, iterations, lr)
    rows = first_rows(weights[-1], C, ascent.layers[-1]).expand(weights[0].shape[0], x_L.shape[1], -1, -1)
    lower, _ = ascent.climb(rows, x_L, x_U)
    upper = -ascent.climb(-rows, x_L, x_U)[0] if bound_upper else lower.new_empty(0)
    return keep_known(*interval.sound(lower, upper), known_lower, known_upper)


@torch.no_grad()
def optimised_functions(
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
    iterations: int,
    lr: float,
) -> Linear:
    """The linear functions of the best bounds that :func:`optimised_pass_reference` meets."""
    ascent = _Ascent(weights, biases, lowers, uppers, lines, geometry, leaks, rule, iterations, lr)
    rows = first_rows(weights[-1], C, ascent.layers[-1]).expand(weights[0].shape[0], x_L.shape[1], -1, -1)
    _, below = ascent.climb(rows, x_L, x_U)
    return below, negated(ascent.climb(-rows, x_L, x_U)[1]) if bound_upper else None


@dataclass(frozen=True)
class _Units:
    """One layer's activations: fixed lines, or bounds from which slopes make lines; all [P, B, 1, ..]."""

    fixed: Tensor | None
    lower: Tensor
    upper: Tensor
    leak: float
    start: Tensor

    @classmethod
    def given(cls, lines: Tensor) -> "_Units":
        return cls(lines, lines, lines, 0.0, lines.new_empty(0))

    @classmethod
    def free(cls, lower: Tensor, upper: Tensor, leak: float, rule: str) -> "_Units":
        start = lines_of.RULES[rule](lower, upper)[..., 0, :].unsqueeze(2)
        return cls(None, lower.unsqueeze(2), upper.unsqueeze(2), leak, start)

    def lines(self, alpha: Tensor) -> Tensor:
        """[P, B, R or 1, 4, n] for slopes [P, B, R or 1, n]."""
        if self.fixed is not None:
            return self.fixed
        return lines_of.leaky(lines_of.free(self.lower, self.upper, alpha), self.leak)


@dataclass
class _Slopes:
    """The slopes of one layer and Adam's running means of their gradient and of its square."""

    alpha: Tensor
    mean: Tensor | float = 0.0
    square: Tensor | float = 0.0

    def step(self, gradient: Tensor, t: int, lr: float) -> None:
        """Uphill, and back into [0, 1]; t counts from 1."""
        self.mean = _BETAS[0] * self.mean + (1 - _BETAS[0]) * gradient
        self.square = _BETAS[1] * self.square + (1 - _BETAS[1]) * gradient**2
        mean, square = self.mean / (1 - _BETAS[0] ** t), self.square / (1 - _BETAS[1] ** t)
        self.alpha = (self.alpha + lr * mean / (square.sqrt() + _EPSILON)).clamp(0, 1)


class _Ascent:
    """A chain whose free lower slopes are optimised for every row and side anew."""

    def __init__(
        self,
        weights: list[Tensor],
        biases: list[Tensor],
        lowers: list[Tensor],
        uppers: list[Tensor],
        lines: list[Tensor],
        geometry: list[int],
        leaks: list[float],
        rule: str,
        iterations: int,
        lr: float,
    ) -> None:
        self.weights, self.biases, self.layers = weights, biases, decode(geometry)
        self.iterations, self.lr = iterations, lr
        self.units = [
            None
            if not layer.relu
            else _Units.given(lines[k])
            if lines[k].numel()
            else _Units.free(lowers[k], uppers[k], leaks[k], rule)
            for k, layer in enumerate(self.layers[:-1])
        ]

    def climb(self, rows: Tensor, x_L: Tensor, x_U: Tensor) -> tuple[Tensor, Function]:
        """The best lower bounds of rows [P, B, R, out] that are met, and the functions of the input they come of."""
        slopes = {k: _Slopes(u.start) for k, u in enumerate(self.units) if u is not None and u.fixed is None}
        lr, best, functions = self.lr, None, None
        for t in range(1, self.iterations + 1):
            made = [
                None if u is None else u.lines(slopes[k].alpha if k in slopes else u.start)
                for k, u in enumerate(self.units)
            ]
            chain = Chain(self.weights, self.biases, self.layers, made)
            bounds, found, gradients = _bounds_and_gradients(chain, rows, x_L, x_U, wanted=t < self.iterations)
            if best is None or functions is None:
                best, functions = bounds, found
            else:
                better = bounds > best
                best = torch.maximum(best, bounds)
                functions = (
                    torch.where(better[..., None], found[0], functions[0]),
                    torch.where(better, found[1], functions[1]),
                )
            for k, gradient in gradients.items():
                if k in slopes:
                    slopes[k].step(gradient, t, lr)
            lr *= DECAY
        assert best is not None
        assert functions is not None
        return best, functions


def _bounds_and_gradients(
    chain: Chain, rows: Tensor, x_L: Tensor, x_U: Tensor, wanted: bool
) -> tuple[Tensor, Function, dict[int, Tensor]]:
    """Lower bounds [P, B, R], their functions and, if wanted, by layer their derivatives by slopes [P, B, R, n]."""
    coefficients = {len(chain.layers) - 1: rows}  # on the outputs of each layer's activation
    constants = {}
    for k, A, constant in chain.walk(rows):
        coefficients[k - 1], constants[k] = A, constant
    A = coefficients.pop(-1)
    bounds = concretise(A, constants[0], x_L, x_U)
    gradients: dict[int, Tensor] = {}
    if not wanted:
        return bounds, (A, constants[0]), gradients
    values = torch.where(A >= 0, x_L[:, :, None], x_U[:, :, None])
    for k, layer in enumerate(chain.layers[:-1]):
        flat = affine.forward(values.flatten(1, 2), chain.weights[k], layer)
        values = flat.view(*values.shape[:3], -1) + affine.per_unit(chain.biases[k], layer)[:, None, None]
        lines = chain.lines[k]
        if lines is not None:
            lower_slope, lower_intercept, upper_slope, upper_intercept = lines.unbind(-2)
            below = coefficients[k] >= 0
            gradients[k] = coefficients[k].clamp(min=0) * values
            slope = torch.where(below, lower_slope, upper_slope)
            values = slope * values + torch.where(below, lower_intercept, upper_intercept)
    return bounds, (A, constants[0]), gradients


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
    iterations: int,
    lr: float,
) -> tuple[Tensor, Tensor]:
    return empty_bounds(x_L, weights, C, geometry, bound_upper)


optimised_pass = Op(
    "optimised_pass",
    f"({SCHEMA}, int iterations, float lr, str backend) -> (Tensor, Tensor)",
    optimised_pass_reference,
    _fake,
    checks.optimised_pass,
    differentiable=False,
)
