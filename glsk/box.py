"""The input set of a query: an epsilon-ball clipped to the data range, or any box, after normalisation."""

import math

import torch
from torch import Tensor

from glsk.arguments import FLOATS, all_finite, describe, is_number, number, with_values
from glsk.layers import Normalize
from glsk.network import Chain

_RADII = (*FLOATS, torch.float16, torch.bfloat16, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8)


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
        for name, end in (("x_L", x_L), ("x_U", x_U)):
            _check_shape(chain, name, end, check_finite)
        if x_L.shape != x_U.shape or x_L.dtype != x_U.dtype or x_L.device != x_U.device:
            raise ValueError("x_L and x_U must agree in shape, dtype and device")
        lower, upper = x_L, x_U
    if check_finite and not _is_plain(lower, upper):
        if x_L is not None and x_U is not None:
            _check_finite("x_L", x_L)
            _check_finite("x_U", x_U)
        if (lower > upper).any():
            raise ValueError("the box is empty: x_L > x_U somewhere (with clip: x lies outside the clipping range)")
    if check_finite and chain.normalize is not None:
        _check_normalize(chain.normalize)
    return _normalize(chain, lower).flatten(1), _normalize(chain, upper).flatten(1)


def _is_plain(lower: Tensor, upper: Tensor) -> bool:
    """Whether both ends are finite and in order, at one look; a box wider than its dtype's largest number is not."""
    low, high = (upper.detach() - lower.detach()).aminmax()
    return bool((low >= 0) & (high < math.inf))


def _check_normalize(layer: Normalize) -> None:
    if not (layer.mean.isfinite().all() and layer.std.isfinite().all() and (layer.std > 0).all()):
        raise ValueError("glsk.Normalize: mean and std must be finite, and std positive")


def _normalize(chain: Chain, x: Tensor) -> Tensor:
    """Elementwise and increasing (a std is positive), so a box maps to exactly the box of its two ends."""
    if chain.normalize is None:
        return x
    shape = (-1, 1, 1) if x.dim() > 2 else (-1,)
    return (x - chain.normalize.mean.to(x).view(shape)) / chain.normalize.std.to(x).view(shape)


def denormalised(chain: Chain, x: Tensor) -> Tensor:
    """Points [.., *input_shape] as the first affine layer sees them, in data units."""
    if chain.normalize is None:
        return x
    shape = (-1, 1, 1) if len(chain.input_shape) == 3 else (-1,)
    return x * chain.normalize.std.to(x).view(shape) + chain.normalize.mean.to(x).view(shape)


def _ball(
    chain: Chain, x: Tensor, eps: float | Tensor, clip: tuple[float, float] | None, check_finite: bool
) -> tuple[Tensor, Tensor]:
    _check_input(chain, "x", x, check_finite)
    if isinstance(eps, Tensor):
        radius: float | Tensor = _radius(eps, x, check_finite)
    elif not is_number(eps):
        raise TypeError(f"eps: expected a number or a tensor, got {type(eps).__name__}")
    else:
        radius = number("eps", eps)
        if radius < 0:
            raise ValueError(f"eps: must be finite and >= 0, got {radius}")
    lower, upper = x - radius, x + radius
    if clip is None:
        return lower, upper
    low, high = _ends(clip)
    return lower.clamp(min=low), upper.clamp(max=high)


def _radius(eps: Tensor, x: Tensor, check_finite: bool) -> Tensor:
    """A tensor eps, ready to be added to x [B, *shape].

    [] or [1] is one number, [B] one number a sample; else it has the axes of a sample, or all of x's, and broadcasts.
    """
    radius = with_values("eps", eps, _RADII, "a floating-point or integer dtype", check_finite).to(x)
    samples, *shape = x.shape
    if radius.dim() == 1 and radius.numel() == samples != 1:
        if shape == [samples]:
            raise ValueError(
                f"eps: shape [{samples}] may mean one eps a sample or one a feature; "
                f"give [{samples}, 1] or [1, {samples}]"
            )
        radius = radius.view(-1, *[1] * len(shape))
    axes_fit = (radius.numel() == 1 and radius.dim() <= 1) or radius.dim() in (len(shape), len(shape) + 1)
    if not axes_fit or any(n not in (1, m) for n, m in zip(radius.shape[::-1], x.shape[::-1], strict=False)):
        raise ValueError(
            f"eps: shape {list(eps.shape)} does not broadcast to {list(x.shape)}; give a number, [{samples}] for one a "
            f"sample, {shape}, or {list(x.shape)}"
        )
    if check_finite and not ((radius >= 0) & radius.isfinite()).all():
        raise ValueError("eps: every value must be finite and >= 0")
    return radius


def _ends(clip: object) -> tuple[float, float]:
    message = f"clip: expected (low, high), finite numbers with low < high, got {describe(clip)}"
    if not isinstance(clip, tuple | list) or len(clip) != 2 or not all(is_number(end) for end in clip):
        raise ValueError(message)
    try:
        low, high = (number("clip", end) for end in clip)
    except ValueError:
        raise ValueError(message) from None
    if not low < high:
        raise ValueError(message)
    return low, high


def _check_input(chain: Chain, name: str, x: Tensor, check_finite: bool) -> None:
    _check_shape(chain, name, x, check_finite)
    if check_finite:
        _check_finite(name, x)


def _check_finite(name: str, x: Tensor) -> None:
    if not all_finite(x):
        raise ValueError(f"{name}: holds NaN or infinity")


def _check_shape(chain: Chain, name: str, x: Tensor, read: bool) -> None:
    x = with_values(name, x, read=read)
    if x.dim() != 1 + len(chain.input_shape) or tuple(x.shape[1:]) != chain.input_shape:
        raise ValueError(f"{name}: expected [B, {', '.join(map(str, chain.input_shape))}], got {list(x.shape)}")
    if x.shape[0] == 0:
        raise ValueError(f"{name}: the batch is empty")
