"""The robust loss of any relaxation (paper, section 2.1): cross-entropy of the worst margins it cannot rule out."""

from typing import Any

from torch import Tensor

from glsk import bounds
from glsk.objectives import crown_ibp, registry
from glsk.objectives.base import MiniBatch, Objective
from glsk.objectives.regularisers import RegulariserSettings


class Robust(Objective):
    """Mean robust cross-entropy ln(1 + sum_j exp(-lower_j)), lower bounds of the margins by one method.

    Args:
        method: the relaxation, any name :func:`glsk.canonical_method` accepts.
        *args, **engine: as :class:`Objective`'s.
    """

    Settings = RegulariserSettings

    def __init__(self, *args: Any, method: str = "CROWN", **engine: Any) -> None:
        super().__init__(*args, **engine)
        self.method = self.name = bounds.canonical_method(method)
        self.differentiable = bounds.is_differentiable(self.method)

    def _losses(self, batch: MiniBatch, params: Tensor | None) -> Tensor:
        return self._cross_entropy(self._lower_margins(batch, params, self.method))


for _name in set(bounds.methods()) - {crown_ibp.CrownIbp.name}:
    registry.add(
        _name,
        Robust,
        *bounds.aliases(_name),
        fixed={"method": _name},
        differentiable=bounds.is_differentiable(_name),
    )
