"""What objectives with adversarial points in them share: whose points, which, and how many members at a time."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

import glsk
from glsk import backends, box, population, specification
from glsk.attacks.members import Members
from glsk.attacks.search import adversarial_points
from glsk.attacks.settings import AttackSettings
from glsk.bounds import Bounds
from glsk.objectives.base import MiniBatch, Objective

MEMORY = 1 << 30
"""Bytes that the members evaluated at a time take, about: as ``compute_bounds`` by default."""


@dataclass(frozen=True)
class Sample:
    """A mini-batch as the network's first layer is given it.

    Attributes:
        batch: the mini-batch.
        lower, upper: the ball of radius eps, cut to the data range: [1, B, n].
        rows: of the logits, whose values are the margins, [B, K - 1, K].
    """

    batch: MiniBatch
    lower: Tensor
    upper: Tensor
    rows: Tensor


class Attacked(Objective):
    """An objective that searches for adversarial points."""

    settings: Any
    Settings: ClassVar[type] = AttackSettings

    def _losses(self, batch: MiniBatch, params: Tensor | None) -> Tensor:
        lower, upper = self._ball(batch, 1.0)
        rows = glsk.margins(batch.y, self.num_classes, check_labels=self.checked)
        rows = specification.resolve(self.bounded.chain, rows.to(batch.x.dtype), lower[0], self.checked)
        sample = Sample(batch, lower, upper, rows)
        members = self._members(params)
        shared = self._points(self._centre(batch, params), sample) if self._shares(params) else None
        room = max(1, MEMORY // (self._floats(members) * lower.shape[1] * lower.element_size()))
        found = []
        for first in range(0, members.size, room):
            part = members.members(first, first + room)
            found.append(self._losses_of(part, sample, self._points(part, sample) if shared is None else shared))
        return torch.cat(found) if len(found) > 1 else found[0]

    @abstractmethod
    def _losses_of(self, members: Members, sample: Sample, points: Tensor) -> Tensor:
        """The losses [P] of members with these adversarial points [P or 1, B, n]."""

    def _points(self, members: Members, sample: Sample) -> Tensor:
        """The adversarial points of members in the box that this objective searches, [P, B, n]."""
        y, step = sample.batch.y, sample.batch.step
        lower, upper = self._searched(sample)
        return adversarial_points(members, lower, upper, y, self.settings, self.seed, step)

    def _searched(self, sample: Sample) -> Bounds:
        """The box that is searched."""
        return sample.lower, sample.upper

    def _floats(self, members: Members) -> int:
        """About how many numbers a member and sample takes."""
        return 8 * members.layers[0].in_features + sum(layer.out_features for layer in members.layers)

    def _ball(self, batch: MiniBatch, scale: float) -> Bounds:
        """The ball of radius ``scale`` eps, cut to the data range and normalised: [1, B, n] both."""
        ends = box.resolve(self.bounded.chain, batch.x, scale * batch.eps, self.clip, None, None, self.checked)
        return ends[0][None], ends[1][None]

    def _members(self, params: Tensor | None) -> Members:
        """The networks of all members, or the module's own; differentiable."""
        chain = self.bounded.chain
        named = population.resolve(chain, self.bounded.net, params)
        if self.checked:
            population.check_values(chain, named)
        some = next(iter(named.values()))
        backend = backends.resolve(self.backend, some.device, some.dtype)
        return Members(chain.geometry, chain.leaks, population.assemble(chain, named), backend)

    def _shares(self, params: Tensor | None) -> bool:
        return params is not None and self.settings.shared_attack

    def _centre(self, batch: MiniBatch, params: Tensor | None) -> Members:
        """The network whose points all members share."""
        assert params is not None
        return self._members((params.detach().mean(dim=0) if batch.centre is None else batch.centre.detach())[None])
