"""What a relaxation is given: a chain with its members' weights, boxes, and how to call the ops."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from glsk import ops
from glsk.bounds.constraints import Constraints
from glsk.geometry import Geometry, encode
from glsk.ops import interval
from glsk.ops.crown_pass import Linear, least_and_greatest, linear_functions
from glsk.ops.optimised_pass import optimised_functions
from glsk.population import Population

Bounds = tuple[Tensor, Tensor]
"""lower, upper, each [P, B, n]."""


@dataclass(frozen=True)
class Query:
    """One tile of a call: P members, B samples.

    Attributes:
        layers: the affine layers 0..K.
        population: their weights and biases, P members.
        x_L, x_U: the box, [1, B, n], or members' own ones, [P, B, n].
        C: the specification [B, S, logits], or None for the logits.
        backend: the ops' backend.
        prune: whether units that interval arithmetic proves stable may keep the interval's bounds.
        bound_upper: whether the upper bound of the output is wanted.
        leaks: of every layer, the slope below zero of the activation that follows; () for ReLUs alone.
        iterations, lr: of alpha-CROWN's ascent.
        constraints: what the caller knows of hidden units.
        linear: a list to which a pass over the specification adds the linear functions that its bounds come of, or None
            where they are not wanted.
    """

    layers: tuple[Geometry, ...]
    population: Population
    x_L: Tensor
    x_U: Tensor
    C: Tensor | None
    backend: str
    prune: bool
    bound_upper: bool
    leaks: tuple[float, ...] = ()
    iterations: int = 20
    lr: float = 0.1
    constraints: Constraints | None = None
    linear: list[Linear] | None = None

    @property
    def last(self) -> int:
        """K, the number of the layer that gives the logits."""
        return len(self.layers) - 1

    @property
    def unbounded(self) -> Bounds:
        """What stands for the bounds of a layer that no ReLU follows."""
        return self.x_L.new_empty(0), self.x_U.new_empty(0)

    def relu_before(self, k: int) -> bool:
        """Whether layer k reads the output of a ReLU."""
        return k > 0 and bool(self.layers[k - 1].relu)

    def hidden(self, k: int, compute: Callable[[], Bounds]) -> Bounds:
        """Layer k's bounds as ``compute`` gives them and the caller's constraints have them."""
        if self.constraints is None or not self.layers[k].relu:
            return compute()
        return self.constraints.bounds(k, self.population.size, compute)

    def needs_bounds(self, k: int) -> bool:
        """Whether a pass reads the bounds of layer k, or only its lines."""
        return bool(self.layers[k].relu) and (self.constraints is None or self.constraints.needs_bounds(k))

    def leak(self, k: int) -> float:
        """Of the activation after layer k."""
        return self.leaks[k] if self.leaks else 0.0

    def activated(self, k: int, box: Bounds) -> Bounds:
        """The box of layer k's outputs after the activation that follows, if one does."""
        return interval.activation(*box, self.leak(k)) if self.layers[k].relu else box

    def ibp(self, k: int, box: Bounds, relu: bool) -> Bounds:
        """Layer k's outputs by interval arithmetic from a box of its inputs, or, with ``relu``, of what its inputs were
        before the activation."""
        leak = self.leak(k - 1) if relu else 0.0
        weight, bias = self.population.weights[k], self.population.biases[k]
        return ops.ibp_affine(*box, weight, bias, list(self.layers[k]), relu, leak, backend=self.backend)

    def spec(self, box: Bounds) -> Bounds:
        """C times the last layer (merged) by interval arithmetic from a box of that layer's inputs."""
        if self.C is None:
            return self.ibp(self.last, box, relu=False)
        return ops.crown_pass(
            *self._operands(self.last, [], box, self.C, None), "adaptive", self.bound_upper, backend=self.backend
        )

    def crown(self, k: int, inner: list[Bounds], rule: str = "adaptive", known: Bounds | None = None) -> Bounds:
        """Layer k's outputs by back-substitution to the box, given bounds of all earlier layers, lines by ``rule``."""
        return ops.crown_pass(*self._to_the_box(k, inner, known), rule, True, backend=self.backend)

    def crown_spec(self, inner: list[Bounds], rule: str = "adaptive") -> Bounds:
        """The specification (or the logits) by back-substitution to the box, lines by ``rule``."""
        operands = self._to_the_box(self.last, inner, None)
        if self.linear is not None:
            self.linear.append(linear_functions(*(*operands, rule, self.bound_upper)))
            return least_and_greatest(self.linear[-1], self.x_L, self.x_U)
        return ops.crown_pass(*operands, rule, self.bound_upper, backend=self.backend)

    def optimised_spec(self, inner: list[Bounds]) -> Bounds:
        """As :meth:`crown_spec`, with lower slopes optimised for every row."""
        operands = self._to_the_box(self.last, inner, None)
        how = "adaptive", self.bound_upper, self.iterations, self.lr
        if self.linear is not None:
            self.linear.append(optimised_functions(*(*operands, *how)))
            with torch.no_grad():  # as the functions are
                return least_and_greatest(self.linear[-1], self.x_L, self.x_U)
        return ops.optimised_pass(*operands, *how, backend=self.backend)

    def hbox_radius(self, k: int, inner: list[Bounds]) -> Tensor:
        """What layer k's outputs (for k = K: the specification) keep as exact functions of the input, as a radius."""
        radius = interval.radius(self.x_L, self.x_U)
        biases = [bias.new_zeros(1, bias.shape[1]).expand(bias.shape) for bias in self.population.biases]
        C = self.C if k == self.last else None
        operands = self._operands(0, inner[:k], (-radius, radius), C, None, biases)
        return -ops.crown_pass(*operands, "mask", False, backend=self.backend)[0]

    def _to_the_box(self, k: int, inner: list[Bounds], known: Bounds | None) -> Sequence[Any]:
        """What a pass is given for layer k, or for the specification."""
        return self._operands(0, inner[:k], (self.x_L, self.x_U), self.C if k == self.last else None, known)

    def _operands(
        self,
        first: int,
        inner: list[Bounds],
        box: Bounds,
        C: Tensor | None,
        known: Bounds | None,
        biases: Sequence[Tensor] | None = None,
    ) -> Sequence[Any]:
        """What a pass over layers first..first+len(inner) is given, from a box of layer first's inputs."""
        last = first + len(inner)
        part = slice(first, last + 1)
        layers = self.layers[part]
        read = [b if layer.relu else self.unbounded for layer, b in zip(layers, inner, strict=False)]
        return (
            *box,
            list(self.population.weights[part]),
            list((biases or self.population.biases)[part]),
            [lower for lower, _ in read],
            [upper for _, upper in read],
            [self._lines(k, last) for k in range(first, last)],
            C,
            *(known or (None, None)),
            encode(layers),
            [self.leak(k) for k in range(first, last + 1)],
        )

    def _lines(self, k: int, last: int) -> Tensor:
        """The caller's lines of layer k for a pass from layer ``last``; those of C's rows serve no other."""
        given = None if self.constraints is None else self.constraints.lines.get(k)
        if given is None or (given.shape[2] > 1 and last < self.last):
            return self.x_L.new_empty(0)
        return given
