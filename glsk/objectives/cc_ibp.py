"""CC-IBP (De Palma et al., 2024): the cross-entropy of a convex combination of margins."""

from torch import Tensor

from glsk.attacks.members import Members
from glsk.objectives.attacked import Sample
from glsk.objectives.mtl_ibp import Expressive
from glsk.objectives.registry import objective


@objective("CC-IBP")
class CcIbp(Expressive):
    """Mean cross-entropy of (1 - alpha) times the adversarial margins, plus alpha times interval bounds'."""

    def _losses_of(self, members: Members, sample: Sample, points: Tensor) -> Tensor:
        adversarial, lowest = self._margins(members, sample, points)
        return self._cross_entropy((1 - self.settings.alpha) * adversarial + self.settings.alpha * lowest)
