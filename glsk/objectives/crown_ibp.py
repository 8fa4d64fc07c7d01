"""CROWN-IBP (Zhang et al., 2020): from CROWN-IBP's bounds to IBP's, as eps grows."""

from dataclasses import dataclass

from torch import Tensor

from glsk.attacks.settings import check_share
from glsk.objectives.base import MiniBatch, Objective
from glsk.objectives.registry import objective
from glsk.objectives.regularisers import RegulariserSettings


@dataclass(frozen=True)
class CrownIbpSettings(RegulariserSettings):
    """Of CROWN-IBP.

    Attributes:
        beta_start, beta_end: the weight in [0, 1] of CROWN-IBP's bounds beside IBP's, where eps starts and where it
            ends; in between it follows eps. 1 and 1, the default, is the relaxation by itself (paper, section 2.2); 1
            and 0 is the schedule of Zhang et al.

    Raises:
        ValueError: naming the setting, if a value makes no sense.
    """

    beta_start: float = 1.0
    beta_end: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share("beta_start", self.beta_start)
        check_share("beta_end", self.beta_end)


@objective("CROWN-IBP")
class CrownIbp(Objective):
    """Mean robust cross-entropy of margins (1 - beta) IBP + beta CROWN-IBP."""

    settings: CrownIbpSettings
    Settings = CrownIbpSettings

    def _losses(self, batch: MiniBatch, params: Tensor | None) -> Tensor:
        own = self.settings
        beta = own.beta_start + (own.beta_end - own.beta_start) * batch.ramp
        parts = [(beta, "CROWN-IBP"), (1 - beta, "IBP")]
        margins = [share * self._lower_margins(batch, params, method) for share, method in parts if share]
        return self._cross_entropy(margins[0] if len(margins) == 1 else margins[0] + margins[1])
