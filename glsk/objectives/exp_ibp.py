"""Exp-IBP (De Palma et al., 2024): a weighted geometric mean of the adversarial loss and that of interval bounds."""

import torch
from torch import Tensor

from glsk.attacks.members import Members
from glsk.objectives.attacked import Sample
from glsk.objectives.mtl_ibp import Expressive
from glsk.objectives.registry import objective


@objective("Exp-IBP")
class ExpIbp(Expressive):
    """Mean over samples of the adversarial loss to the power 1 - alpha, times that of interval bounds to alpha."""

    def _losses_of(self, members: Members, sample: Sample, points: Tensor) -> Tensor:
        logarithms = [_log_cross_entropy(margins) for margins in self._margins(members, sample, points)]
        adversarial, lowest = logarithms
        losses = ((1 - self.settings.alpha) * adversarial + self.settings.alpha * lowest).exp().mean(dim=1)
        return self._known(losses)


def _log_cross_entropy(margins: Tensor) -> Tensor:
    """ln of the cross-entropy [P, B] of margins [P, B, K - 1]; of one too small for the dtype, of the smallest."""
    losses = torch.nn.functional.softplus(torch.logsumexp(-margins, dim=2))
    return losses.clamp(min=torch.finfo(losses.dtype).tiny).log()
