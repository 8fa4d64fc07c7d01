"""A search for unsafe inputs of many properties at a time: projected ascent from diverse starts, several at once.

Starts are diversified by the outputs (Tashiro et al., 2020): from a random point, a few steps up a random direction of
the outputs. Steps are signs of a running mean of the gradient, in units of the box's width, and shrink to nothing.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from glsk.verify.goals import Goals

DIVERSIFYING_STEPS = 5
MOMENTUM = 0.75
FIRST_STEP = 0.25
"""Of a box's width."""


@dataclass(frozen=True)
class AttackSettings:
    """How long to search: ``steps`` from each of ``restarts`` starts; the first aims at the nearest unsafe set."""

    steps: int = 40
    restarts: int = 8


def search(net: nn.Module, goals: Goals, settings: AttackSettings, generator: torch.Generator) -> Tensor:
    """Of every goal the input found that is deepest in (or nearest to) its unsafe set: float64 [G, *input_shape].

    The points lie in the goals' boxes. Whether one is unsafe is for a float64 forward pass to say.

    Args:
        net: float32, inputs [N, *input_shape] in data units to outputs [N, K].
        goals: what is searched; the starts are random points of their boxes, and the first is the box's point.
        settings: how long.
        generator: CPU generator of the starts.
    """
    low, high, A, b = (t.float() for t in (goals.x_L[goals.box], goals.x_U[goals.box], goals.A, goals.b))

    def depth(outputs: Tensor, rows: Tensor) -> Tensor:
        """How far inside each goal's unsafe set: positive inside, [N]."""
        values: Tensor = (b[rows] - (A[rows] @ outputs.unsqueeze(-1)).squeeze(-1)).amin(dim=1)
        return values

    best = goals.point[goals.box].float()
    with torch.no_grad():
        reached = depth(net(best), torch.arange(goals.size))
    for restart in range(settings.restarts):
        rows = (~(reached > 0)).nonzero()[:, 0]
        if not len(rows):
            break
        ends = low[rows], high[rows]
        start = best[rows]
        if restart:
            noise = torch.rand(start.shape, generator=generator)
            start = ends[0] + (ends[1] - ends[0]) * noise
            direction = torch.randn(len(rows), A.shape[2], generator=generator)
            start = _ascend(net, start, ends, partial(_along, direction), DIVERSIFYING_STEPS, False)
        point = _ascend(net, start, ends, partial(depth, rows=rows), settings.steps, True)
        with torch.no_grad():
            found = depth(net(point), rows)
        better = rows[found > reached[rows]]
        chosen = found > reached[rows]
        best[better], reached[better] = point[chosen], found[chosen]
    return torch.minimum(torch.maximum(best.double(), goals.x_L[goals.box]), goals.x_U[goals.box])


def _along(direction: Tensor, outputs: Tensor) -> Tensor:
    return (outputs * direction).sum(1)


def _ascend(
    net: nn.Module,
    point: Tensor,
    ends: tuple[Tensor, Tensor],
    value: Callable[[Tensor], Tensor],
    steps: int,
    shrinking: bool,
) -> Tensor:
    """Steps up ``value`` of the outputs within the box; the last point."""
    width, mean = ends[1] - ends[0], torch.zeros_like(point)
    for step in range(steps):
        with torch.enable_grad():
            at = point.detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(value(net(at)).sum(), at)
        norm = gradient.flatten(1).abs().sum(1).clamp(min=1e-30).view(-1, *[1] * (point.dim() - 1))
        mean = MOMENTUM * mean + gradient / norm
        size = FIRST_STEP * (0.5 + 0.5 * math.cos(math.pi * step / steps)) + 0.005 if shrinking else FIRST_STEP
        point = torch.minimum(torch.maximum(point + size * width * mean.sign(), ends[0]), ends[1])
    return point
