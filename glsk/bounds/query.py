"""What a relaxation is given: a chain with its members' weights, boxes, and how to call the ops."""

from dataclasses import dataclass

from torch import Tensor

from glsk import ops
from glsk.geometry import Geometry, encode
from glsk.population import Population

Bounds = tuple[Tensor, Tensor]
"""lower, upper, each [P, B, n]."""


@dataclass(frozen=True)
class Query:
    """One tile of a call: P members, B samples.

    Attributes:
        layers: the affine layers 0..K.
        population: their weights and biases, P members.
        x_L, x_U: the box, [1, B, n].
        C: the specification [B, S, logits], or None for the logits.
        backend: the ops' backend.
        prune: whether units that interval arithmetic proves stable may keep the interval's bounds.
        bound_upper: whether the upper bound of the output is wanted.
    """

    layers: tuple[Geometry, ...]
    population: Population
    x_L: Tensor
    x_U: Tensor
    C: Tensor | None
    backend: str
    prune: bool
    bound_upper: bool

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

    def ibp(self, k: int, box: Bounds, relu: bool) -> Bounds:
        """Layer k's outputs by interval arithmetic from a box of its inputs (after a ReLU on both ends, or not)."""
        weight, bias = self.population.weights[k], self.population.biases[k]
        return ops.ibp_affine(*box, weight, bias, list(self.layers[k]), relu, backend=self.backend)

    def spec(self, box: Bounds) -> Bounds:
        """C times the last layer (merged) by interval arithmetic from a box of that layer's inputs."""
        if self.C is None:
            return self.ibp(self.last, box, relu=False)
        return self._pass(self.last, [], *box, self.C, None, self.bound_upper)

    def crown(self, k: int, inner: list[Bounds], known: Bounds | None = None) -> Bounds:
        """Layer k's outputs by DeepPoly back-substitution to the box, given bounds of all earlier layers."""
        return self._pass(0, inner[:k], self.x_L, self.x_U, None, known, True)

    def crown_spec(self, inner: list[Bounds]) -> Bounds:
        """The specification (or the logits) by DeepPoly back-substitution to the box."""
        return self._pass(0, inner, self.x_L, self.x_U, self.C, None, self.bound_upper)

    def hbox_radius(self, k: int, inner: list[Bounds]) -> Tensor:
        """What layer k's outputs (for k = K: the specification) keep as exact functions of the input, as a radius."""
        lowers, uppers = self._hidden(inner[:k])
        C = self.C if k == self.last else None
        weights = list(self.population.weights[: k + 1])
        layers = encode(self.layers[: k + 1])
        return ops.hbox_pass(self.x_L, self.x_U, weights, lowers, uppers, C, layers, backend=self.backend)

    def _hidden(self, inner: list[Bounds]) -> tuple[list[Tensor], list[Tensor]]:
        kept = [b if layer.relu else self.unbounded for layer, b in zip(self.layers, inner, strict=False)]
        return [lower for lower, _ in kept], [upper for _, upper in kept]

    def _pass(
        self,
        first: int,
        inner: list[Bounds],
        x_L: Tensor,
        x_U: Tensor,
        C: Tensor | None,
        known: Bounds | None,
        bound_upper: bool,
    ) -> Bounds:
        """A DeepPoly pass over layers first..first+len(inner), from a box of layer first's inputs."""
        stop = first + len(inner) + 1
        return ops.crown_pass(
            x_L,
            x_U,
            list(self.population.weights[first:stop]),
            list(self.population.biases[first:stop]),
            *self._hidden(inner),
            C,
            *(known or (None, None)),
            encode(self.layers[first:stop]),
            bound_upper,
            backend=self.backend,
        )
