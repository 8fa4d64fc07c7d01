"""Randomised gradient smoothing: the mean gradient of a few perturbed networks, followed by Adam.

It is the first-order form of Gaussian loss smoothing: the expectation is E[grad L(theta + noise)], which is the
gradient of the smoothed loss except for what the loss jumps.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from glsk import settings
from glsk.estimators.gradient import Gradient, differentiate
from glsk.objectives.base import MiniBatch, Objective, Span
from glsk.seeds import stream
from glsk.transfer import to_device


@dataclass(frozen=True)
class RgsSettings:
    """Settings of ``rgs``.

    Attributes:
        members: perturbed networks a step.
        stdev: standard deviation of the perturbations.
        antithetic: perturbations come in pairs of opposite sign; then ``members`` is even.
        grad_clip: largest norm of the mean gradient; 0 for no clipping.

    Raises:
        ValueError: naming the setting, if a value makes no sense.
    """

    members: int = 8
    stdev: float = 1e-3
    antithetic: bool = True
    grad_clip: float = 10.0

    def __post_init__(self) -> None:
        settings.check(self)
        settings.check_positive(self, "members", "stdev")
        if self.antithetic and self.members % 2:
            raise ValueError(f"members: expected an even number (antithetic pairs), got {self.members}")


class Rgs(Gradient):
    """Adam on the mean of the gradients at perturbed weights, all on the same mini-batch."""

    kind = "rgs"
    Settings: ClassVar[type] = RgsSettings

    def _differentiate(self, batch: MiniBatch, index: int) -> tuple[dict[str, float], Span]:
        own, draws = self.settings, stream(self.job.seed, "rgs", index)
        centre = parameters_to_vector(self.parameters).detach()
        members = perturbed(centre, own.members, own.stdev, own.antithetic, draws)
        losses, gradient, backward = mean_gradient(self.objective, replace(batch, centre=centre), members)
        offset = 0
        for p in self.parameters:
            p.grad = gradient[offset : offset + p.numel()].view_as(p)
            offset += p.numel()
        return {"loss": float(losses.mean()), "loss_min": float(losses.min()), "members": own.members}, backward


def perturbed(centre: Tensor, count: int, stdev: Tensor | float, antithetic: bool, draws: torch.Generator) -> Tensor:
    """Members [count, D] around ``centre`` [D], in pairs of opposite perturbations or each on its own.

    Args:
        centre: [D].
        count: of members.
        stdev: of the perturbations, a number or [D].
        antithetic: the second half of the members mirrors the first.
        draws: CPU generator of the perturbations.
    """
    rows = count // 2 if antithetic else count
    noise = to_device(torch.randn(rows, len(centre), generator=draws, dtype=centre.dtype), centre.device) * stdev
    return centre + (torch.cat([noise, -noise]) if antithetic else noise)


def mean_gradient(objective: Objective, batch: MiniBatch, members: Tensor) -> tuple[Tensor, Tensor, Span]:
    """The losses [n] of members [n, D], the mean of their gradients [D], and the backward pass."""
    members = members.detach().requires_grad_(True)
    losses = objective(batch, members)
    backward = differentiate(losses.mean())
    assert members.grad is not None
    return losses.detach(), members.grad.sum(0), backward
