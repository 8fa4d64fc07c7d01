"""The logits of all members of a population, and what they rise with; no graph is recorded for either."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from glsk.geometry import Geometry
from glsk.layers import Normalize
from glsk.ops import affine
from glsk.population import Population


class Members:
    """Layers of P members as functions of the first one's inputs.

    Args:
        layers: one after the other.
        leaks: of each, the slope below zero of the activation that follows.
        population: their weights and biases.
        normalize: what comes before them.
    """

    def __init__(
        self,
        layers: Sequence[Geometry],
        leaks: Sequence[float],
        population: Population,
        normalize: Normalize | None = None,
    ) -> None:
        self.layers, self.leaks, self.population, self.normalize = layers, leaks, population, normalize

    def logits(self, x: Tensor) -> Tensor:
        """The outputs [P, B, K] at x, [P, B, *shape] or [1, B, *shape]; differentiable."""
        values = self._entered(x)
        for k in range(len(self.layers)):
            values = self._activated(k, self._affine(k, values))
        return values

    @torch.no_grad()
    def gradient(self, x: Tensor, by_logits: Callable[[Tensor], Tensor]) -> Tensor:
        """The gradient by x, [P, B, *shape] as x, of what has the gradient ``by_logits`` [P, B, K] at logits [P, B, K].

        A factor, positive and of each input alone, is left out: the normalisation's.
        """
        values, before = self._entered(x), []
        for k in range(len(self.layers)):
            before.append(self._affine(k, values))
            values = self._activated(k, before[k])
        rows = by_logits(values)
        for k in reversed(range(len(self.layers))):
            if self.layers[k].relu:
                rows = torch.where(before[k] > 0, rows, self.leaks[k] * rows)
            weight = self.population.weights[k]
            rows = affine.transposed(rows.unsqueeze(2), weight, self.layers[k]).squeeze(2)
        return rows.reshape(len(rows), *x.shape[1:])

    def _entered(self, x: Tensor) -> Tensor:
        if self.normalize is not None:
            shape = (-1, 1, 1) if x.dim() > 3 else (-1,)
            x = (x - self.normalize.mean.to(x).view(shape)) / self.normalize.std.to(x).view(shape)
        return x.flatten(2).expand(self.population.size, -1, -1)

    def _affine(self, k: int, values: Tensor) -> Tensor:
        layer, weight, bias = self.layers[k], self.population.weights[k], self.population.biases[k]
        return affine.forward(values, weight, layer) + affine.per_unit(bias, layer)[:, None]

    def _activated(self, k: int, values: Tensor) -> Tensor:
        if not self.layers[k].relu:
            return values
        return values.relu() if self.leaks[k] == 0 else torch.where(values > 0, values, self.leaks[k] * values)
