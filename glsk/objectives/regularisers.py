"""The warm-up regularisers of Shi et al. (2021, section 3.3) for training with bounds while eps grows.

One keeps intervals from growing through the layers, the other keeps as many units active as inactive, on average.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

import glsk
from glsk import box
from glsk.attacks.settings import check_share


@dataclass(frozen=True)
class RegulariserSettings:
    """Of any objective with bounds in it.

    Attributes:
        regularisation: lambda, the regularisers' weight at eps 0, which falls to 0 as eps reaches its final value; Shi
            et al. take 0.5.
        regularisation_tolerance: tau in (0, 1], below which a ratio is penalised.
    """

    regularisation: float = 0.0
    regularisation_tolerance: float = 0.5

    def __post_init__(self) -> None:
        check_share("regularisation", self.regularisation, most=float("inf"))
        check_share("regularisation_tolerance", self.regularisation_tolerance, zero=False)


def warm_up(
    bounded: "glsk.BoundedModule",
    x: Tensor,
    eps: float,
    clip: tuple[float, float],
    params: Tensor | None,
    *,
    tolerance: float = 0.5,
    backend: str = "auto",
    check_finite: bool = True,
) -> Tensor:
    """L_tightness + L_ReLU, means over the layers that an activation follows, of interval bounds.

    Args:
        bounded: the network.
        x: images [B, *shape], in data units.
        eps, clip: the ball and the data range.
        params: members [P, D]; None is the module's own weights.
        tolerance: tau.
        backend, check_finite: as in ``compute_bounds``.

    Returns:
        [P], or [1] without members; differentiable in the weights.
    """
    ends = box.resolve(bounded.chain, x, eps, clip, None, None, check_finite)
    width = ((ends[1] - ends[0]) / 2).mean()
    hidden = bounded.intermediate_bounds(
        x, eps=eps, clip=clip, method="IBP", params=params, backend=backend, check_finite=check_finite
    )
    layers = [(lower, upper) if lower.dim() == 3 else (lower[None], upper[None]) for lower, upper in hidden.values()]
    found = [tightness(width, *layer, tolerance) + balance(*layer, tolerance) for layer in layers]
    return torch.stack(found).mean(dim=0) if found else x.new_zeros(1 if params is None else len(params))


def tightness(width: Tensor, lower: Tensor, upper: Tensor, tolerance: float) -> Tensor:
    """ReLU(tau - width / mean radius) / tau of a layer's bounds [P, B, n], with the input's mean radius: [P]."""
    radius = ((upper - lower) / 2).mean(dim=(1, 2))
    return (tolerance - width / radius.clamp(min=torch.finfo(radius.dtype).tiny)).relu() / tolerance


def balance(lower: Tensor, upper: Tensor, tolerance: float) -> Tensor:
    """How far active and inactive units are from balance in a layer's bounds [P, B, n]: [P].

    Of the sums of their centres, and of the squares of these around their mean, ReLU(tau - r) / tau with r <= 1 the
    ratio of active to inactive, or its inverse. Where there is neither an active nor an inactive unit, 0.
    """
    center, active, inactive = (lower + upper) / 2, lower > 0, upper < 0
    spread = (center - center.mean(dim=(1, 2), keepdim=True)).square()
    means = [(center * mask).mean(dim=(1, 2)) for mask in (active, inactive)]
    variances = [(spread * mask).mean(dim=(1, 2)) for mask in (active, inactive)]
    return sum(_unlike(a, b, tolerance) for a, b in ((means[0], -means[1]), variances))  # type: ignore[return-value]


def _unlike(a: Tensor, b: Tensor, tolerance: float) -> Tensor:
    """ReLU(tau - min(a / b, b / a)) / tau for a, b >= 0; 0 where both are 0."""
    larger, smaller = torch.maximum(a, b), torch.minimum(a, b)
    none = larger <= 0
    ratio = smaller / torch.where(none, 1, larger)
    return torch.where(none, 0, (tolerance - ratio).relu() / tolerance)
