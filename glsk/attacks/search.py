"""Searches for points of boxes, for every member of a population: by restarts, from random points."""

from collections.abc import Callable

import torch
from torch import Tensor

from glsk.attacks.members import Members, rows_at
from glsk.attacks.settings import AttackSettings, LatentSettings
from glsk.seeds import stream
from glsk.transfer import to_device

Value = Callable[[Tensor], Tensor]
"""Points [P, B, S, n] to what they reach, [P, B, S]."""


def adversarial_points(
    members: Members, lower: Tensor, upper: Tensor, labels: Tensor, settings: AttackSettings, seed: int, step: int
) -> Tensor:
    """A point of the box with a large cross-entropy, for every member and sample (Madry et al., 2018).

    Args:
        members: P members.
        lower, upper: the box [P or 1, B, n].
        labels: [B].
        settings: of the search.
        seed, step: determine the random starts, which are the same for all members.

    Returns:
        [P, B, n], in the box.
    """

    def value(points: Tensor) -> Tensor:
        logits = members.logits(points.squeeze(2)).log_softmax(dim=2)
        return -logits.gather(2, labels.long().view(1, -1, 1).expand(len(logits), -1, 1))

    def climb(start: Tensor) -> Tensor:
        share, steps = settings.step_size, settings.attack_steps
        return members.ascend(start, lower, upper, labels=labels, step=share, steps=steps)

    return _best(lower, upper, climb, value, settings.attack_restarts, (seed, "attack", step)).squeeze(2)


def lowest_rows(
    members: Members, lower: Tensor, upper: Tensor, rows: Tensor, settings: LatentSettings, seed: int, step: int
) -> Tensor:
    """For every row [B, S, K] of linear functions of the logits, a point of the box at which it is small.

    Returns:
        [P, B, S, n], in the box. Otherwise as :func:`adversarial_points`.
    """

    def value(points: Tensor) -> Tensor:
        logits = members.logits(points.flatten(1, 2)).unflatten(1, points.shape[1:3])
        return -rows_at(rows, logits)

    def climb(start: Tensor) -> Tensor:
        start = start.expand(-1, -1, rows.shape[1], -1)
        return members.ascend(start, lower, upper, rows=-rows, step=settings.latent_step, steps=settings.latent_steps)

    return _best(lower, upper, climb, value, settings.latent_restarts, (seed, "latent", step))


@torch.no_grad()
def _best(
    lower: Tensor,
    upper: Tensor,
    climb: Callable[[Tensor], Tensor],
    value: Value,
    restarts: int,
    label: tuple[int, str, int],
) -> Tensor:
    """The best of the points that ``climb`` finds from random starts [P or 1, B, 1, n]."""
    best = best_value = None
    for restart in range(restarts):
        noise = to_device(torch.rand(lower.shape[1:], generator=stream(*label, restart)), lower.device)
        points = climb(torch.addcmul(lower, upper - lower, noise.to(lower.dtype)).unsqueeze(2))
        if restarts == 1:
            return points
        reached = value(points)
        if best is None or best_value is None:
            best, best_value = points, reached
        else:
            best = torch.where((reached > best_value).unsqueeze(3), points, best)
            best_value = torch.maximum(reached, best_value)
    assert best is not None
    return best
