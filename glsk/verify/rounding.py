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

from glsk import box
from glsk.network import Affine
from glsk.ops import affine
from glsk.verify.magnitudes import GROWTH, LINE_STEPS, SMALL, TINY, UNIT, Magnitudes, gamma, total

if TYPE_CHECKING:
    from glsk.module import BoundedModule


class Rounding:
    """Slack of the float64 bounds of a network over boxes: computed bound - slack <= exact bound, and so on mirrored.

    It holds for every method, backend and order of summation, for pruned rows, for CROWN's, DeepZ's and HBox's lines
    and any lower slopes in [0, 1], for bounds intersected with others that rounding has moved as little, and for
    splits. It does not cover ``lines`` from outside.

    Args:
        bounded: the network, whose own weights are float64.
        x_L, x_U: the boxes that are bounded, [I, *input_shape], float64, in data units. They count as exact: see
            :func:`outward_ball` for an epsilon-ball.
        intermediate: of some layers, by name, bounds [I, n] that hold all those from which lines are made. The slack is
            less where they are known, and must be given where they may be wider than any that glsk computes.

    Raises:
        ValueError: float32, or an empty box.
    """

    @torch.no_grad()
    def __init__(
        self,
        bounded: "BoundedModule",
        x_L: Tensor,
        x_U: Tensor,
        *,
        intermediate: Mapping[str, tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        net = Magnitudes.of(bounded, x_L)
        lower, upper = box.resolve(net.chain, None, None, None, x_L, x_U, check_finite=True)
        self._steps, self._gamma = net.steps, gamma(3 * net.steps)
        self._hidden: list[Tensor] = []
        size = torch.maximum(lower.abs(), upper.abs()) + TINY
        # What the inputs of a layer are off by, as rows of it see them: for any hidden bounds, and for widened ones.
        carried = widened = size * net.input_error
        self._units = size.sum(1, keepdim=True)
        for k, layer in enumerate(net.layers):
            moved = torch.stack((size, carried, widened)).flatten(0, 1)[None]
            moved = affine.forward(moved, net.weights[k], layer.geometry)
            size, carried, widened = (moved[0] * GROWTH).unflatten(0, (3, -1))
            size = (size + net.biases[k]) * GROWTH
            self._last = size, carried, widened
            if k == len(net.layers) - 1:
                break
            self._units = self._units + size.sum(1, keepdim=True)
            error = self._error(size, carried)
            self._hidden.append(error)
            carried = carried + error
            if layer.geometry.relu:
                line = LINE_STEPS * UNIT * size
                carried, widened = carried + line, widened + line
                size = _activated(size, error, layer, intermediate)

    def hidden(self, k: int) -> Tensor:
        """[I, n]: a computed bound of the outputs of affine layer k, moved outward by this, holds exactly."""
        return total(self._hidden[k])

    def packed(self) -> Tensor:
        """[I, U]: :meth:`hidden` of every affine layer but the last, one after the other."""
        return torch.cat([self.hidden(k) for k in range(len(self._hidden))], dim=1)

    @torch.no_grad()
    def rows(
        self,
        C: Tensor,
        *,
        index: Tensor | None = None,
        multipliers: Tensor | None = None,
        widened: bool = False,
    ) -> Tensor:
        """[B, S]: a computed lower bound of C f(x), less this, holds exactly; the subtraction's own rounding is in it.

        Args:
            C: [B, S, K] or [S, K], float64.
            index: the box of each of the B, int64 [B]; None: B = I.
            multipliers: [B, S], where a bound has multipliers beta of split units: the sum of |beta| times
                :meth:`packed` of the unit.
            widened: that every hidden bound from which lines were made had been moved outward by :meth:`hidden`. Then
                nothing of that is carried along.
        """
        size, carried = (part if index is None else part[index] for part in self._last[:: 2 if widened else 1][:2])
        rows = C.to(size).abs() + TINY
        magnitude, moved = ((rows * part[:, None]).sum(-1) * GROWTH for part in (size, carried))
        slack = self._error(magnitude, moved, index)
        return total((slack if multipliers is None else slack + multipliers) * GROWTH)

    def _error(self, size: Tensor, carried: Tensor, index: Tensor | None = None) -> Tensor:
        """What a pass is off by at rows of this magnitude, and of these carried errors: [B, n]."""
        units = self._units if index is None else self._units[index]
        return (carried + self._gamma * size + SMALL * self._steps * (1 + units)) * GROWTH


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


def _activated(size: Tensor, error: Tensor, layer: Affine, given: Mapping[str, tuple[Tensor, Tensor]] | None) -> Tensor:
    """The magnitude of an activation's output and of its lines' terms, slope times input and intercept: [I, n].

    An upper line's intercept is -l u / (u - l), at most the smaller of |l| and u.
    """
    if given is None or layer.name not in given:
        return (2 * size + error) * GROWTH
    lower, upper = given[layer.name]
    unstable = (lower < 0) & (upper > 0)
    intercept = torch.where(unstable, torch.minimum(lower.abs(), upper.abs()), 0)
    inactive = upper + 2 * error < 0  # truly: even a split that says otherwise is then one that no input meets
    slope = torch.where(inactive, layer.leak + 8 * UNIT, 1.0)
    return (slope * size + intercept + error) * GROWTH
