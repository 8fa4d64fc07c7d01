"""MTL-IBP (De Palma et al., 2024): a convex combination of the adversarial loss and that of interval bounds."""

from dataclasses import dataclass

from torch import Tensor

from glsk.attacks.members import Members, rows_at
from glsk.attacks.settings import AttackSettings, check_share
from glsk.bounds import Bounds
from glsk.objectives import interval
from glsk.objectives.attacked import Attacked, Sample
from glsk.objectives.registry import objective
from glsk.objectives.regularisers import RegulariserSettings


@dataclass(frozen=True)
class ExpressiveSettings(AttackSettings, RegulariserSettings):
    """Of the losses between an adversarial one and that of interval bounds.

    Attributes:
        alpha: the weight of interval bounds, in [0, 1]; 0 is adversarial training, 1 is IBP.
        attack_radius: of the ball that is attacked, in eps.
    """

    alpha: float = 0.5
    attack_radius: float = 1.0

    def __post_init__(self) -> None:
        AttackSettings.__post_init__(self)
        RegulariserSettings.__post_init__(self)
        check_share("alpha", self.alpha)
        check_share("attack_radius", self.attack_radius, most=float("inf"), zero=False)


class Expressive(Attacked):
    """What MTL-IBP, CC-IBP and Exp-IBP share."""

    Settings = ExpressiveSettings

    def _searched(self, sample: Sample) -> Bounds:
        return self._ball(sample.batch, self.settings.attack_radius)

    def _margins(self, members: Members, sample: Sample, points: Tensor) -> tuple[Tensor, Tensor]:
        """At the adversarial points, and the lowest that interval bounds leave: [P, B, K - 1] both."""
        adversarial = rows_at(sample.rows, members.logits(points))
        return adversarial, interval.lowest_rows(members, sample.lower, sample.upper, sample.rows)


@objective("MTL-IBP")
class MtlIbp(Expressive):
    """(1 - alpha) times the adversarial loss, plus alpha times that of interval bounds."""

    def _losses_of(self, members: Members, sample: Sample, points: Tensor) -> Tensor:
        adversarial, lowest = (self._cross_entropy(m) for m in self._margins(members, sample, points))
        return (1 - self.settings.alpha) * adversarial + self.settings.alpha * lowest
