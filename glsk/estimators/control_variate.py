"""PGPE with a control variate: the noise of its estimate comes only from what a gradient does not explain.

For any vector v that does not depend on the perturbations, v + mean_i eps_i (d_i - eps_i v) / sigma^2 with
d_i = (r_i+ - r_i-) / 2 has the expectation of PGPE's estimate mean_i eps_i d_i / sigma^2, what the loss jumps included.
v is the gradient at the centre, or a mean of gradients at perturbations of their own, on the population's mini-batch.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from glsk import settings
from glsk.estimators.base import Job, check_finite
from glsk.estimators.pgpe import Pgpe, check_population
from glsk.estimators.rgs import mean_gradient, perturbed
from glsk.objectives.base import MiniBatch, Span
from glsk.seeds import stream

if TYPE_CHECKING:
    from collections.abc import Mapping

    from evotorch.algorithms import PGPE


@dataclass(frozen=True)
class ControlVariateSettings:
    """Settings of ``pgpe-cv``.

    Attributes:
        popsize: P, even (members come in antithetic pairs).
        stdev_init: initial standard deviation of the members, sigma_PGPE.
        stdev_lr: learning rate of the standard deviation.
        optimizer: of the centre, "adam" or "clipup".
        control_members: gradients that the control variate is the mean of: 0 for the one at the centre, else those at
            so many members (even) of a population of their own.

    Raises:
        ValueError: naming the setting, if a value makes no sense.
    """

    popsize: int = 32
    stdev_init: float = 1e-3
    stdev_lr: float = 0.1
    optimizer: str = "adam"
    control_members: int = 0

    def __post_init__(self) -> None:
        settings.check(self)
        check_population(self)
        if self.control_members % 2:
            raise ValueError(f"control_members: expected an even number (pairs), got {self.control_members}")


class ControlVariate(Pgpe):
    """PGPE whose estimate for the centre is that of what a gradient leaves over; sigma's is PGPE's own."""

    kind = "pgpe-cv"
    Settings: ClassVar[type] = ControlVariateSettings
    differentiates = True

    def __init__(self, job: Job, settings: Any = None, *, late: bool | None = None) -> None:
        super().__init__(job, settings, late=late)
        self.objective = job.objective(not self.late)

    def _build(self, centre: Tensor, stdev: Tensor) -> "PGPE":
        from glsk.estimators.population.residuals import controlled

        return controlled(super()._build(centre, stdev))

    def _ranking(self) -> None:
        """Residuals are differences of raw fitnesses."""

    def _look(self, batch: MiniBatch, index: int) -> tuple[dict[str, Tensor], list[Span]]:
        """The control variate of the population that was just evaluated, and what share of the noise it leaves."""
        from glsk.estimators.population.residuals import residual_share

        device, count = self.job.device, self.settings.control_members
        centre = self._status("center").to(device)
        members = centre[None]
        if count:
            draws = stream(self.job.seed, "control", index)
            members = perturbed(centre, count, self._status("stdev").to(device), True, draws)
        self.objective.restart()
        losses, gradient, backward = mean_gradient(self.objective, replace(batch.to(device), centre=centre), members)
        gradient = gradient.to(self.problem.device)
        share = residual_share(self.algorithm, gradient)
        found = {"residual": share, "control_loss": losses.mean(), "control_norm": torch.linalg.vector_norm(gradient)}
        return found, [*self.objective.spans, backward]

    def _check(self, found: "Mapping[str, float]", index: int) -> None:
        super()._check(found, index)
        check_finite(found["control_norm"], self.name, index, "gradient norm")
