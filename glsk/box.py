"""The input set of a query: an epsilon-ball clipped to the data range, or any box, after normalisation."""

import math

import torch
from torch import Tensor

from glsk.network import Chain

_DTYPES = (torch.float32, torch.float64)


def resolve(
    chain: Chain,
    x: Tensor | None,
    eps: float | Tensor | None,
    clip: tuple[float, float] | None,
    x_L: Tensor | None,
    x_U: Tensor | None,
    check_finite: bool,
) -> tuple[Tensor, Tensor]:
    """The box of each sample as (x_L, x_U), both [B, n], normalised.

    Raises:
        TypeError: on a wrong type or dtype.
        ValueError: on a wrong shape or combination of arguments, negative or NaN eps, NaN input, or x_L > x_U.
    """
    if x is not None:
        if x_L is not None or x_U is not None:
            raise ValueError("give either x and eps, or x_L and x_U, not both")
        if eps is None:
            raise ValueError("eps is required with x (eps=0 bounds the point itself)")
        lower, upper = _ball(chain, x, eps, clip, check_finite)
    elif x_L is None or x_U is None:
        raise ValueError("give either x and eps, or both x_L and x_U")
    else:
        if eps is not None or clip is not None:
            raise ValueError("eps and clip belong to x; x_L and x_U already are the box")
        _check_input(chain, "x_L", x_L, check_finite)
        _check_input(chain, "x_U", x_U, check_finite)
        if x_L.shape != x_U.shape or x_L.dtype != x_U.dtype or x_L.device != x_U.device:
            raise ValueError("x_L and x_U must agree in shape, dtype and device")
        lower, upper = x_L, x_U
    if check_finite and (lower > upper).any():
        raise ValueError("the box is empty: x_L > x_U somewhere (with clip: x lies outside the clipping range)")
    return _normalize(chain, lower).flatten(1), _normalize(chain, upper).flatten(1)


def _normalize(chain: Chain, x: Tensor) -> Tensor:
    """Elementwise and increasing, so a box maps to exactly the box of its two ends."""
    if chain.normalize is None:
        return x
    shape = (-1, 1, 1) if x.dim() > 2 else (-1,)
    return (x - chain.normalize.mean.to(x).view(shape)) / chain.normalize.std.to(x).view(shape)


def _ball(
    chain: Chain, x: Tensor, eps: float | Tensor, clip: tuple[float, float] | None, check_finite: bool
) -> tuple[Tensor, Tensor]:
    _check_input(chain, "x", x, check_finite)
    if isinstance(eps, Tensor):
        try:
            radius = torch.broadcast_to(eps.to(x), x.shape)
        except RuntimeError:
            raise ValueError(f"eps: shape {list(eps.shape)} does not broadcast to {list(x.shape)}") from None
        if check_finite and not ((radius >= 0) & radius.isfinite()).all():
            raise ValueError("eps: every value must be finite and >= 0")
        lower, upper = x - radius, x + radius
    else:
        if isinstance(eps, bool) or not isinstance(eps, (int, float)):
            raise TypeError(f"eps: expected a number or a tensor, got {type(eps).__name__}")
        if not (eps >= 0 and math.isfinite(eps)):
            raise ValueError(f"eps: must be finite and >= 0, got {eps}")
        lower, upper = x - eps, x + eps
    if clip is None:
        return lower, upper
    if not (_is_pair(clip) and clip[0] < clip[1]):
        raise ValueError(f"clip: expected (low, high) with low < high, got {clip}")
    return lower.clamp(min=clip[0]), upper.clamp(max=clip[1])


def _is_pair(clip: object) -> bool:
    return isinstance(clip, tuple | list) and len(clip) == 2 and all(isinstance(end, int | float) for end in clip)


def _check_input(chain: Chain, name: str, x: Tensor, check_finite: bool) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(x).__name__}")
    if x.dtype not in _DTYPES:
        raise TypeError(f"{name}: expected float32 or float64, got {x.dtype}")
    if x.dim() != 1 + len(chain.input_shape) or tuple(x.shape[1:]) != chain.input_shape:
        raise ValueError(f"{name}: expected [B, {', '.join(map(str, chain.input_shape))}], got {list(x.shape)}")
    if x.shape[0] == 0:
        raise ValueError(f"{name}: the batch is empty")
    if check_finite and not x.isfinite().all():
        raise ValueError(f"{name}: holds NaN or infinity")
