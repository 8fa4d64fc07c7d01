"""The DeepPoly relaxation of a ReLU, channel last, for the engine of the passes."""

import torch
import triton
import triton.language as tl
from glsk.kernels.plan import spatial
from glsk.kernels.shape import Plan
from torch import Tensor

from glsk.geometry import Geometry

BLOCK = 1024


@triton.jit
def upper_line(lower, upper):
    """Slope and intercept of the line above the ReLU; NaN where a bound is not finite."""
    active = lower >= 0.0
    stable = active | (upper <= 0.0)
    finite = (tl.abs(lower) < float("inf")) & (tl.abs(upper) < float("inf"))
    # Both ends are halved only where their distance overflows: that is not exact for the smallest numbers.
    factor = tl.where(upper - lower < float("inf"), 1.0, 0.5)
    width = upper * factor - lower * factor
    slope = tl.where(active, 1.0, tl.where(stable, 0.0, upper * factor / tl.where(stable, 1.0, width)))
    intercept = tl.where(stable, 0.0, -slope * lower)
    return tl.where(finite, slope, float("nan")), tl.where(finite, intercept, float("nan"))


@triton.jit(do_not_specialize=["units", "channels", "slopes"])
def channel_last_slopes_kernel(
    lower_ptr, upper_ptr, slopes_ptr, units, channels, slopes, MASK: tl.constexpr, BLOCK: tl.constexpr
):
    """Slopes and intercepts [.., 2, slopes] of a layer, in row, column, channel order; MASK: the active mask and 0."""
    pair = tl.program_id(0).to(tl.int64)
    unit = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = unit < units
    source = unit % channels * (units // channels) + unit // channels
    lower = tl.load(lower_ptr + pair * units + source, mask=mask, other=0.0)
    upper = tl.load(upper_ptr + pair * units + source, mask=mask, other=0.0)
    slope, intercept = upper_line(lower, upper)
    if MASK:
        slope = tl.where(lower >= 0.0, 1.0, 0.0)
        intercept = tl.where(intercept == intercept, 0.0, intercept)  # NaN stays
    tl.store(slopes_ptr + 2 * pair * slopes + unit, slope, mask=mask)
    tl.store(slopes_ptr + (2 * pair + 1) * slopes + unit, intercept, mask=mask)


def channel_last_slopes(
    plan: Plan, layers: list[Geometry], lowers: list[Tensor], uppers: list[Tensor], pairs: int, mask: bool
) -> Tensor:
    """CROWN's lines, or HBox's mask, of every layer that a ReLU follows: [pairs, 2, plan.slopes]."""
    slopes = torch.empty(pairs, 2, plan.slopes, dtype=torch.float32, device=lowers[0].device)
    for layer, lower, upper, offset in zip(spatial(layers), lowers, uppers, plan.slope_offsets, strict=False):
        if layer.relu:
            grid = (pairs, triton.cdiv(layer.out_features, BLOCK))
            channel_last_slopes_kernel[grid](
                lower.contiguous(), upper.contiguous(), slopes[:, :, offset:], layer.out_features, layer.out_channels,
                plan.slopes, MASK=mask, BLOCK=BLOCK, num_warps=4,
            )  # fmt: skip
    return slopes


def channel_last_lines(
    plan: Plan, layers: list[Geometry], lines: list[Tensor | None], members: int, samples: int
) -> Tensor:
    """Any lines [P or 1, B or 1, 1, 4, n] of every layer that an activation follows: [P, B, 4, plan.slopes]."""
    device = next(given.device for given in lines if given is not None)
    slopes = torch.empty(members, samples, 4, plan.slopes, dtype=torch.float32, device=device)
    for layer, given, offset in zip(spatial(layers), lines, plan.slope_offsets, strict=False):
        if given is not None:
            units = given[:, :, 0].unflatten(-1, (layer.out_channels, -1)).mT.flatten(-2)
            slopes[..., offset : offset + layer.out_features] = units
    return slopes
