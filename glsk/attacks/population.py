"""PGD (Madry et al., 2018) on every member of a population, or on one network for all of them."""

from collections.abc import Callable

import torch
from torch import Tensor

from glsk.attacks.ascent import ascend, start
from glsk.attacks.members import Members
from glsk.attacks.settings import AttackSettings
from glsk.seeds import stream
from glsk.transfer import to_device

ByLogits = Callable[[Tensor], Tensor]


def attack(
    members: Members,
    lower: Tensor,
    upper: Tensor,
    y: Tensor,
    radius: float,
    settings: AttackSettings,
    seed: int,
    step: int,
) -> Tensor:
    """For every member and sample, a point of the box with a large cross-entropy.

    Args:
        members: P members.
        lower, upper: the box [B, *shape].
        y: labels [B].
        radius: what the step size is a share of, in the box's units.
        settings: of the search.
        seed, step: determine the random starts, which are the same for all members.

    Returns:
        [P, B, *shape], in the box.
    """
    size = members.population.size
    worst, worst_loss = lower[None], None
    for restart in range(settings.attack_restarts):
        noise = torch.rand(lower.shape, generator=stream(seed, "attack", step, restart), dtype=lower.dtype)
        first = start(lower, upper, to_device(noise, lower.device))
        point = first.expand(size, *first.shape).clone()
        step_size = float(settings.step_size * radius)
        ascend(lambda at: members.gradient(at, rises(y)), point, lower, upper, step_size, settings.attack_steps)
        if settings.attack_restarts == 1:
            return point
        loss = cross_entropy(members.logits(point), y)
        if worst_loss is None:
            worst, worst_loss = point, loss
        else:
            worse = loss > worst_loss
            worst = torch.where(worse.view(*worse.shape, *[1] * (point.dim() - 2)), point, worst)
            worst_loss = torch.maximum(loss, worst_loss)
    return worst


def rises(y: Tensor) -> ByLogits:
    """The gradient of the cross-entropy of each sample by its logits [P, B, K]."""

    def by_logits(logits: Tensor) -> Tensor:
        gradient = logits.softmax(dim=2)
        index = y.long().view(1, -1, 1).expand(len(logits), -1, 1)
        return gradient.scatter_add_(2, index, gradient.new_full((), -1.0).expand(index.shape))

    return by_logits


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Of every member and sample, [P, B]."""
    index = y.long().view(1, -1, 1).expand(len(logits), -1, 1)
    return -logits.log_softmax(dim=2).gather(2, index).squeeze(2)
