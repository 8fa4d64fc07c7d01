"""Adversarial training (Madry et al., 2018): the cross-entropy of points that PGD finds."""

from torch import Tensor

from glsk.attacks.members import Members, rows_at
from glsk.objectives.attacked import Attacked, Sample
from glsk.objectives.registry import objective


@objective("PGD", "adversarial")
class Adversarial(Attacked):
    """Mean cross-entropy at adversarial points."""

    def _losses_of(self, members: Members, sample: Sample, points: Tensor) -> Tensor:
        return self._cross_entropy(rows_at(sample.rows, members.logits(points)))
