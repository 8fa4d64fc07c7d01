"""Consecutive layers of all members of a population: evaluated, and attacked."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from glsk import ops
from glsk.geometry import Geometry, encode
from glsk.ops import affine
from glsk.population import Population


@dataclass(frozen=True)
class Members:
    """Layers of P members, as functions of the first one's inputs (of the normalised ones, for a network's first).

    Attributes:
        layers: one after the other.
        leaks: of each, the slope below zero of the activation that follows.
        population: their weights and biases.
        backend: of the ops.
    """

    layers: tuple[Geometry, ...]
    leaks: tuple[float, ...]
    population: Population
    backend: str = "auto"

    @property
    def size(self) -> int:
        """P."""
        return self.population.size

    def members(self, start: int, stop: int) -> "Members":
        """Some of them."""
        return replace(self, population=self.population.slice(start, stop))

    def part(self, first: int, stop: int | None = None) -> "Members":
        """Layers ``first`` to ``stop``."""
        cut = slice(first, stop)
        population = Population(self.population.weights[cut], self.population.biases[cut])
        return replace(self, layers=self.layers[cut], leaks=self.leaks[cut], population=population)

    def logits(self, x: Tensor) -> Tensor:
        """The outputs [P, M, K] at points [P or 1, M, n]; differentiable."""
        values = x.expand(self.size, -1, -1)
        layers = zip(self.layers, self.leaks, self.population.weights, self.population.biases, strict=True)
        for layer, leak, weight, bias in layers:
            pixels = affine.forward(values, weight, layer).unflatten(2, (layer.out_channels, -1))
            values = (pixels + bias[:, None, :, None]).flatten(2)
            if layer.relu:
                values = values.relu() if leak == 0 else torch.where(values > 0, values, leak * values)
        return values

    @torch.no_grad()
    def ascend(
        self,
        start: Tensor,
        lower: Tensor,
        upper: Tensor,
        *,
        rows: Tensor | None = None,
        labels: Tensor | None = None,
        step: float,
        steps: int,
    ) -> Tensor:
        """Points [P, B, S, n], as :data:`glsk.ops.sign_ascent` explains it."""
        weights, biases = ([t.detach() for t in some] for some in (self.population.weights, self.population.biases))
        labels = None if labels is None else labels.long()
        what = weights, biases, rows, labels, encode(self.layers), list(self.leaks), step, steps
        found: Tensor = ops.sign_ascent(start, lower, upper, *what, backend=self.backend)
        return found


def rows_at(rows: Tensor, logits: Tensor) -> Tensor:
    """Rows [B, S, K] of logits [P, B, K], or of logits [P, B, S, K] of a point a row: [P, B, S]."""
    return torch.einsum("bsk,pbk->pbs" if logits.dim() == 3 else "bsk,pbsk->pbs", rows, logits)
