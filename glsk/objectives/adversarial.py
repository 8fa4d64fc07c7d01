"""Adversarial training (Madry et al., 2018): the cross-entropy of points that PGD finds."""

import torch
from torch import Tensor

from glsk import box, population
from glsk.attacks.members import Members
from glsk.attacks.population import attack
from glsk.attacks.settings import AttackSettings
from glsk.objectives.base import MiniBatch, Objective
from glsk.objectives.registry import objective


class Attacked(Objective):
    """An objective with adversarial points in it."""

    settings: AttackSettings
    Settings = AttackSettings

    def _members(self, params: Tensor | None) -> Members:
        """The network of all members, or the module's own."""
        chain = self.bounded.chain
        named = population.resolve(chain, self.bounded.net, params)
        if self.checked:
            population.check_values(chain, named)
        return Members(chain.geometry, chain.leaks, population.assemble(chain, named), chain.normalize)

    def _attacked(self, batch: MiniBatch, params: Tensor | None) -> Members:
        """Whose points are searched for: every member's, or their centre's."""
        if params is not None and self.settings.shared_attack:
            centre = params.detach().mean(dim=0) if batch.centre is None else batch.centre
            return self._members(centre[None])
        return self._members(None if params is None else params.detach())

    @torch.no_grad()
    def _points(self, batch: MiniBatch, params: Tensor | None, radius: float) -> Tensor:
        """Adversarial points [P, B, *shape], or [1, B, *shape] where all members share them."""
        x = batch.x
        box.resolve(self.bounded.chain, x, radius, self.clip, None, None, self.checked)
        lower, upper = (x - radius).clamp(min=self.clip[0]), (x + radius).clamp(max=self.clip[1])
        members = self._attacked(batch, params)
        return attack(members, lower, upper, batch.y, radius, self.settings, self.seed, batch.step)


@objective("PGD", "adversarial")
class Adversarial(Attacked):
    """Mean cross-entropy at the adversarial points of every member, or of their centre."""

    def _losses(self, batch: MiniBatch, params: Tensor | None) -> Tensor:
        points = self._points(batch, params, batch.eps)
        return self._cross_entropy(margins_of(self._members(params).logits(points), batch.y))


def margins_of(logits: Tensor, y: Tensor) -> Tensor:
    """The margins f_y - f_j, j != y ascending, [P, B, K - 1] of logits [P, B, K]."""
    rows = torch.arange(logits.shape[2] - 1, device=y.device)
    others = rows + (rows >= y[:, None])  # j ascending, with j = y left out
    shape = (len(logits), -1, -1)
    return logits.gather(2, y.long().view(1, -1, 1).expand(*shape)) - logits.gather(2, others.expand(*shape))
