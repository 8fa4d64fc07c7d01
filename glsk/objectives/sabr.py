"""SABR (Mueller et al., 2023): interval bounds over a small box around an adversarial point."""

from dataclasses import dataclass

from torch import Tensor

from glsk.attacks.members import Members
from glsk.attacks.settings import AttackSettings, check_share
from glsk.bounds import Bounds
from glsk.objectives import interval
from glsk.objectives.attacked import Attacked, Sample
from glsk.objectives.registry import objective
from glsk.objectives.regularisers import RegulariserSettings


@dataclass(frozen=True)
class SabrSettings(AttackSettings, RegulariserSettings):
    """Of SABR.

    Attributes:
        tau: the small box's radius as a share of eps, in (0, 1]; 1 is IBP. The default is that for MNIST at eps 0.1.
    """

    tau: float = 0.4

    def __post_init__(self) -> None:
        AttackSettings.__post_init__(self)
        RegulariserSettings.__post_init__(self)
        check_share("tau", self.tau, zero=False)


@objective("SABR")
class Sabr(Attacked):
    """Mean robust cross-entropy of the small box, which lies within the ball."""

    Settings = SabrSettings

    def _losses_of(self, members: Members, sample: Sample, points: Tensor) -> Tensor:
        lower, upper = small_box(sample, points, self.settings.tau)
        return self._cross_entropy(interval.lowest_rows(members, lower, upper, sample.rows))


def small_box(sample: Sample, points: Tensor, tau: float) -> Bounds:
    """The box of ``tau`` times the ball's widths around each point [P or 1, B, n], moved into the ball."""
    radius = tau * (sample.upper - sample.lower) / 2
    center = points.clamp(sample.lower + radius, sample.upper - radius)
    return center - radius, center + radius
