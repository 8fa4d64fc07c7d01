"""evotorch's antithetic Gaussian with a control variate."""

from typing import Any

import torch
from evotorch.algorithms import PGPE
from evotorch.distributions import SymmetricSeparableGaussian
from torch import Tensor


class ControlledGaussian(SymmetricSeparableGaussian):
    """The same distribution; the gradient of its centre is that of what ``control`` leaves over, plus ``control``.

    Attributes:
        control: [D], a gradient of the utilities (minus that of the losses) that does not depend on the samples; set
            before gradients are computed.
    """

    control: Tensor | None = None

    def _compute_gradients(self, samples: Tensor, weights: Tensor, ranking_used: str | None) -> dict[str, Tensor]:
        control = self.control
        assert control is not None
        along = (samples[0::2] - self.mu) @ control
        # (r+ - r-) / 2 loses what the control variate explains; (r+ + r-) / 2, which sigma follows, stays.
        residuals = weights - torch.stack([along, -along], dim=1).flatten()
        gradients: dict[str, Tensor] = super()._compute_gradients(samples, residuals, ranking_used)
        gradients["mu"] = gradients["mu"] + self.sigma**2 * control  # evotorch's gradient carries sigma squared
        return gradients


def controlled(algorithm: PGPE) -> PGPE:
    """Give a PGPE that has not begun this distribution."""
    distribution: Any = algorithm._distribution
    algorithm._distribution = ControlledGaussian(
        distribution.parameters, dtype=distribution.dtype, device=distribution.device
    )
    return algorithm


def residual_share(algorithm: PGPE, gradient: Tensor) -> Tensor:
    """Make the losses' ``gradient`` [D] the control variate of the population that was just evaluated.

    Returns:
        [], the share of sum_i d_i^2 that the residuals d_i - eps_i gradient hold; 1 where all d_i are 0.
    """
    distribution: Any = algorithm._distribution
    distribution.control = -gradient
    population = algorithm.population
    losses = population.access_evals(0)
    differences = (losses[0::2] - losses[1::2]) / 2
    residuals = differences - (population.access_values(keep_evals=True)[0::2] - distribution.mu) @ gradient
    total = differences.square().sum()
    return (residuals.square().sum() / total).masked_fill(total == 0, 1.0)
