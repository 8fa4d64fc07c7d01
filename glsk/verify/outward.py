"""Hidden bounds that hold exactly: each is moved outward by what rounding can have moved it inward, before it is used.

Lines are then wrong by their own rounding alone, nothing of earlier layers' errors is carried along, and magnitudes are
those of the bounds themselves. So the slack stays small in deep networks, where that of :mod:`glsk.verify.rounding`,
which asks for nothing but one forward pass, grows with the products of absolute weights (docs/soundness.md).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from glsk import backends, bounds, box
from glsk.bounds import Bounds, Constraints, Query
from glsk.ops import affine, interval
from glsk.verify.magnitudes import (
    GROWTH,
    LINE_STEPS,
    SMALL,
    TINY,
    UNIT,
    Magnitudes,
    gamma,
    layer_steps,
    plane_steps,
    total,
)
from glsk.verify.norms import spectral

if TYPE_CHECKING:
    from glsk.module import BoundedModule

METHODS = ("IBP", "CROWN-IBP", "CROWN", "DeepZ")
"""HBox carries a box beside its bounds, and alpha-CROWN's last pass evaluates networks that leave the hidden bounds."""


class Outward:
    """The hidden bounds of one call, moved outward, and the slack of passes that use them.

    Attributes:
        found: number of the layer -> its bounds [1, I, n], which hold exactly.
        errors: number of the layer -> [I, n], by which they were moved: enough for any bound of it that is computed by
            intervals or by a pass down (CROWN with any lower slopes in [0, 1], ``Roots.bound``) from bounds that hold
            and lie within ``found``.
    """

    def __init__(self, net: Magnitudes, x_L: Tensor, x_U: Tensor, planes: bool = False) -> None:
        self.net, self.next, self.planes = net, 0, planes
        first = net.layers[0].geometry
        self.steps = net.steps + (first.out_features + plane_steps(first) if planes else 0)
        self.found: dict[int, Bounds] = {}
        self.errors: dict[int, Tensor] = {}
        self._gamma = gamma(self.steps)  # of the sum of a row's constants
        self._value = torch.maximum(x_L.abs(), x_U.abs()) + TINY  # of what the next layer reads
        cost = self._value * (self._gamma + net.input_error)  # of one of a row's coefficients there
        self._units = self._value.sum(1, keepdim=True)
        self._carried, self._norm = cost, cost.norm(dim=1, keepdim=True) * GROWTH
        self._local = self._crude = self._size = cost

    def bounds(self, k: int, compute: Callable[[], Bounds]) -> Bounds:
        """Layer k's bounds as ``compute`` gives them, moved outward. Layers come in order."""
        lower, upper = compute()
        self._skip(k)
        error = self._enter(k)
        lower, upper = lower - error, upper + error
        self.errors[k], self.found[k] = error, (lower, upper)
        self._leave(k, lower[0], upper[0], error)
        return lower, upper

    def by_name(self) -> dict[str, tuple[Tensor, Tensor]]:
        """``found`` as ``compute_bounds`` takes it: the affine layer's name -> [I, n] each."""
        return {self.net.layers[k].name: (lower[0], upper[0]) for k, (lower, upper) in self.found.items()}

    def packed(self) -> Tensor:
        """``errors`` of every affine layer but the last, one after the other, [I, U]; 0 where no activation follows."""
        like = self._units
        sizes = [layer.geometry.out_features for layer in self.net.layers[:-1]]
        return torch.cat([self.errors.get(k, like.new_zeros(len(like), n)) for k, n in enumerate(sizes)], dim=1)

    def rows(self, C: Tensor, index: Tensor | None = None, multipliers: Tensor | None = None) -> Tensor:
        """[B, S]: what the bounds of C f(x) (C: [B, S, K] or [S, K]) by a pass down from ``found`` are off by.

        ``index`` and ``multipliers`` are those of ``Rounding.rows``; the latter the sum of |beta| times ``errors``.
        """
        self._skip(last := len(self.net.layers) - 1)
        if last not in self.errors:
            self.errors[last] = self._enter(last)
        local, crude, norm, units = (
            t if index is None else t[index] for t in (self._local, self._crude, self._norm, self._units)
        )
        rows = C.to(local).abs() + TINY
        carried = torch.minimum(
            (rows * crude[:, None]).sum(-1), rows.norm(dim=-1) * self._spectral(last) * norm * GROWTH
        )
        slack = (carried + (rows * local[:, None]).sum(-1) + SMALL * self.steps * (1 + units)) * GROWTH * GROWTH
        return total(slack if multipliers is None else slack + multipliers * GROWTH)

    def _enter(self, k: int) -> Tensor:
        """What computed bounds of layer k are off by, [I, n]."""
        layer = self.net.layers[k]
        moved = affine.forward(torch.cat((self._value, self._carried))[None], self.net.weights[k], layer.geometry)[0]
        products, self._crude = (moved * GROWTH).chunk(2)
        self._size = (products + self.net.biases[k]) * GROWTH
        # A unit of coefficient on an output: the products that it adds to the coefficients below, and its constant.
        steps = layer_steps(layer.geometry) + (plane_steps(layer.geometry) if self.planes and k == 0 else 0)
        self._local = (gamma(steps) * products + self._gamma * self.net.biases[k]) * GROWTH
        self._units = self._units + self._size.sum(1, keepdim=True)
        carried = torch.minimum(self._crude, self.net.row_norms(k) * self._norm * GROWTH)
        underflow = SMALL * self.steps * (1 + self._units)
        return total((carried + self._local + underflow) * GROWTH)

    def _leave(self, k: int, lower: Tensor, upper: Tensor, error: Tensor) -> None:
        """Behind layer k's activation (if it has one), with bounds that hold."""
        layer = self.net.layers[k]
        cost = self._local
        if layer.geometry.relu:
            size = torch.maximum(lower.abs(), upper.abs())
            unstable = (lower < 0) & (upper > 0)
            intercept = torch.where(unstable, torch.minimum(-lower, upper), 0)
            lines = LINE_STEPS * UNIT * (self._size + size)
            if self.planes and k == 0:  # their constants, and the shares of lines and planes
                intercept, lines = intercept + 2 * self._size, 2 * lines
            cost = cost + self._gamma * intercept + lines
            ends = interval.activation(lower, upper, layer.leak)
            self._value = torch.maximum(ends[0].abs(), ends[1].abs()) * GROWTH + TINY
        else:
            cost = cost + error
            self._value = (self._size + error) * GROWTH
        self._units = self._units + self._value.sum(1, keepdim=True)
        self._carried = (self._crude + cost) * GROWTH
        self._norm = (self._spectral(k) * self._norm + cost.norm(dim=1, keepdim=True)) * GROWTH
        self.next = k + 1

    def _spectral(self, k: int) -> float:
        """By how much layer k makes a row's 2-norm grow. Of planes only absolute values are known."""
        if self.planes and k == 0:
            return spectral(self.net.weights[0][0], self.net.layers[0].geometry)
        return self.net.spectral(k)

    def _skip(self, k: int) -> None:
        """Over layers that no activation follows, whose bounds nobody asked for."""
        while self.next < k:
            error = self._enter(self.next)
            self._leave(self.next, error, error, error)


@dataclass(frozen=True)
class _Hook(Constraints):
    """Where a method asks for hidden bounds."""

    outward: Outward | None = None

    def bounds(self, k: int, members: int, compute: Callable[[], Bounds]) -> Bounds:
        assert self.outward is not None
        return self.outward.bounds(k, compute)


@torch.no_grad()
def hidden_and_rows(
    bounded: "BoundedModule",
    x_L: Tensor,
    x_U: Tensor,
    C: Tensor | None,
    *,
    method: str = "CROWN",
    backend: str = "auto",
    planes: bool = False,
) -> tuple[Outward, Tensor | None]:
    """Hidden bounds by ``method`` that hold exactly, and, with a C, lower bounds [I, S] of C f(x) that hold exactly.

    Args:
        bounded: the network, float64.
        x_L, x_U: boxes [I, *input_shape], float64, in data units.
        C: [I, S, K] or [S, K], float64.
        method: one of :data:`METHODS`.
        backend: of the ops.
        planes: that passes may have planes above the first layer's units too (``Roots``), whose weights are no greater
            than the units' own.

    Raises:
        ValueError: another method, float32, or an empty box.
    """
    name = bounds.canonical_method(method)
    if name not in METHODS:
        raise ValueError(f"method: {name!r} cannot be moved outward layer by layer; can: {', '.join(METHODS)}")
    net = Magnitudes.of(bounded, x_L)
    low, high = box.resolve(net.chain, None, None, None, x_L, x_U, check_finite=True)
    outward = Outward(net, low, high, planes)
    query = Query(
        layers=net.chain.geometry,
        population=net.population,
        x_L=low[None],
        x_U=high[None],
        C=None if C is None else C.expand(len(low), -1, -1),
        backend=backends.resolve(backend, low.device, low.dtype),
        prune=True,
        bound_upper=False,
        leaks=net.chain.leaks,
        constraints=_Hook(outward=outward),
    )
    found = bounds.get(name)(query)
    for _ in range(query.last):
        next(found)
    if C is None:
        return outward, None
    lower = next(found)[0][0]
    slack = outward.rows(C)
    return outward, torch.where(lower.isfinite() & slack.isfinite(), lower - slack, -math.inf)


__all__ = ["METHODS", "Outward", "hidden_and_rows"]
