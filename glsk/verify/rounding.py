"""How far rounding can have moved a bound that was computed in float64: what makes a verdict rigorous.

``docs/soundness.md`` has the argument. In short: a computed bound differs from the exact value of its own formula by at
most gamma_N times the sum of the magnitudes of its terms, in whatever order they are added, and the magnitudes of all
units come of one forward pass of the network of absolute values. Lines of bounds that rounding has moved by e are wrong
by at most e, so what earlier layers' bounds are off by is carried along in the same pass.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from glsk import box, population
from glsk.geometry import Geometry
from glsk.network import Affine
from glsk.ops import affine

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


class Rounding:
    """Slack of the float64 bounds of a network over boxes: computed bound - slack <= exact bound, and so on mirrored.

    It holds for every method, backend and order of summation, for pruned rows, for CROWN's, DeepZ's and HBox's lines
    and any lower slopes in [0, 1], for bounds intersected with others that rounding has moved as little, and for
    splits. It does not cover ``lines`` from outside.

    Args:
        bounded: the network, whose own weights are float64.
        x_L, x_U: the boxes that are bounded, [B, *input_shape], float64, in data units. They count as exact: see
            :func:`outward_ball` for an epsilon-ball.
        intermediate: bounds of hidden units that have not come of this network and box by glsk, as ``compute_bounds``
            takes them ([B, n] each): they may be wider than any that glsk computes.
        widened: say that every hidden bound from which lines are made has been moved outward by :meth:`hidden`. Then
            nothing of it is carried along, and the slack is less.

    Raises:
        ValueError: float32, or an empty box.
    """

    def __init__(
        self,
        bounded: "BoundedModule",
        x_L: Tensor,
        x_U: Tensor,
        *,
        intermediate: Mapping[str, tuple[Tensor, Tensor]] | None = None,
        widened: bool = False,
    ) -> None:
        chain = bounded.chain
        if x_L.dtype != torch.float64:
            raise ValueError(f"x_L: rounding is bounded in float64 only, got {x_L.dtype}")
        with torch.no_grad():
            lower, upper = box.resolve(chain, None, None, None, x_L, x_U, check_finite=True)
            named = population.resolve(chain, bounded.net, None)
            weights = population.assemble(chain, named)
            if weights.weights[0].dtype != torch.float64:
                raise ValueError(f"the network is {weights.weights[0].dtype}; rounding is bounded in float64 only")
            self._steps = steps(chain.geometry)
            self._gamma = gamma(3 * self._steps)
            self._hidden: list[Tensor] = []
            size = torch.maximum(lower.abs(), upper.abs())[None] + TINY
            carried = size * (0 if chain.normalize is None else 4 * UNIT)
            self._units = size.sum(2)
            for k, layer in enumerate(chain.layers):
                weight = weights.weights[k].abs() + TINY
                bias = weights.biases[k].abs() + _shift(layer, named) + TINY
                moved = affine.forward(torch.cat((size, carried), dim=1), weight, layer.geometry) * GROWTH
                size, carried = moved.chunk(2, dim=1)
                size = (size + affine.per_unit(bias, layer.geometry)[:, None]) * GROWTH
                self._last = size, carried
                if k == len(chain.layers) - 1:
                    break
                self._units = self._units + size.sum(2)
                error = self._error(size, carried)
                self._hidden.append(error)
                carried = carried + (0 if widened else error)
                if layer.geometry.relu:
                    carried = carried + LINE_STEPS * UNIT * size
                    size = size + torch.maximum(size + error, _intercept(intermediate, layer, size))

    def hidden(self, k: int) -> Tensor:
        """[B, n]: a computed bound of the pre-activations of affine layer k less this, or plus, holds exactly."""
        return _total(self._hidden[k][0])

    def rows(self, C: Tensor, multipliers: Tensor | None = None, constant: Tensor | None = None) -> Tensor:
        """[B, S]: a computed lower bound of C f(x) (+ constant) less this holds exactly.

        Args:
            C: [B, S, K] or [S, K], float64.
            multipliers: [B, S], where a bound has multipliers beta of split units: the sum of |beta| times
                :meth:`hidden` of the unit.
            constant: [B, S] or what broadcasts with it: added to the bound afterwards.
        """
        size, carried = (part[0][:, None] for part in self._last)
        rows = C.to(size).abs() + TINY
        total_size = (rows * size).sum(-1) * GROWTH
        slack = self._error(total_size[None], (rows * carried).sum(-1)[None] * GROWTH)[0]
        if multipliers is not None:
            slack = slack + multipliers * GROWTH
        if constant is not None:
            slack = slack + 4 * UNIT * (total_size + slack + constant.abs())
        return _total(slack * GROWTH)

    def _error(self, size: Tensor, carried: Tensor) -> Tensor:
        """What a pass is off by at rows of this magnitude, and of these carried errors: [1, B, n]."""
        underflow = SMALL * self._steps * (1 + self._units)
        return (carried + self._gamma * size + underflow[..., None]) * GROWTH


def certified(lower: Tensor, slack: Tensor) -> Tensor:
    """Where a computed lower bound proves that the exact one is above 0; nothing that is not finite does."""
    return (lower > slack) & lower.isfinite() & slack.isfinite()


def outward_ball(x: Tensor, eps: float | Tensor, clip: tuple[float, float] | None = None) -> tuple[Tensor, Tensor]:
    """The ends of a box that holds the eps-ball, cut to ``clip``; x - eps and x + eps, rounded, may lie inside it.

    Args:
        x: [B, *shape], float64, in data units.
        eps: a number, or what broadcasts with x.
    """
    lower = torch.nextafter(x - eps, x.new_tensor(-math.inf))
    upper = torch.nextafter(x + eps, x.new_tensor(math.inf))
    if clip is None:
        return lower, upper
    return lower.clamp(min=clip[0]), upper.clamp(max=clip[1])


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


def _shift(layer: Affine, named: Mapping[str, Tensor]) -> Tensor | float:
    """What a folded BatchNorm adds to the magnitude of a bias: its own bias, which may cancel the rest."""
    norm = layer.batch_norm
    return 0.0 if norm is None or norm.bias is None else 2 * named[norm.bias].abs()


def _intercept(given: Mapping[str, tuple[Tensor, Tensor]] | None, layer: Affine, like: Tensor) -> Tensor:
    """The most that an upper line's intercept can be, -l u / (u - l), by bounds from outside: [1, B, n]."""
    if given is None or layer.name not in given:
        return torch.zeros_like(like)
    lower, upper = (end.reshape(like.shape) for end in given[layer.name])
    return torch.minimum(lower.abs(), upper.abs()) * GROWTH


def _total(slack: Tensor) -> Tensor:
    """With infinity where an overflow leaves no number."""
    return slack.nan_to_num(nan=math.inf, posinf=math.inf)
