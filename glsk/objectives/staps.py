"""STAPS (Mao et al., 2023): TAPS over SABR's small box."""

from dataclasses import dataclass

from torch import Tensor

from glsk.attacks.members import Members
from glsk.bounds import Bounds
from glsk.objectives.attacked import Attacked, Sample
from glsk.objectives.registry import objective
from glsk.objectives.sabr import SabrSettings, small_box
from glsk.objectives.taps import Taps, TapsSettings


@dataclass(frozen=True)
class StapsSettings(TapsSettings, SabrSettings):
    """Of STAPS: those of SABR and of TAPS."""

    def __post_init__(self) -> None:
        SabrSettings.__post_init__(self)
        TapsSettings.__post_init__(self)


@objective("STAPS")
class Staps(Taps):
    """As TAPS, of the small box around an adversarial point."""

    Settings = StapsSettings

    def _box(self, sample: Sample, points: Tensor) -> Bounds:
        return small_box(sample, points, self.settings.tau)

    def _points(self, members: Members, sample: Sample) -> Tensor:
        return Attacked._points(self, members, sample)

    def _shares(self, params: Tensor | None) -> bool:
        return Attacked._shares(self, params)
