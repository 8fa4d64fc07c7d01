"""The DeepPoly relaxation of a ReLU, as an op and, channel last, for the engine of the passes."""

import torch
import triton
import triton.language as tl
from glsk.kernels.launch import on
from glsk.kernels.plan import spatial
from glsk.kernels.shape import Plan
from torch import Tensor

from glsk import ops

BLOCK = 1024


@triton.jit
def poison(lower, upper):
    """0, or NaN where an end is not finite: added to what is made of bounds, so that a bound which is none shows."""
    return (lower - lower) + (upper - upper)


@triton.jit
def upper_line(lower, upper):
    """Slope and intercept of the line above the ReLU."""
    active = lower >= 0.0
    stable = active | (upper <= 0.0)
    width = tl.where(stable, 1.0, upper - lower)
    # Halves only where the width overflows: they would lose the last bit of a denormal.
    wide = width > 3.4028234e38
    half = tl.where(wide, 0.5, 1.0)
    slope = upper * half / tl.where(wide, upper * 0.5 - lower * 0.5, width)
    slope = tl.where(active, 1.0, tl.where(stable, 0.0, slope)) + poison(lower, upper)
    return slope, tl.where(stable, poison(lower, upper), -slope * lower)


@triton.jit
def relu_relaxation_kernel(lower_ptr, upper_ptr, low_slope_ptr, slope_ptr, intercept_ptr, size, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < size
    lower = tl.load(lower_ptr + at, mask=mask, other=0.0)
    upper = tl.load(upper_ptr + at, mask=mask, other=0.0)
    slope, intercept = upper_line(lower, upper)
    low_slope = tl.where((lower >= 0.0) | ((upper > 0.0) & (upper > -lower)), 1.0, 0.0) + poison(lower, upper)
    tl.store(low_slope_ptr + at, low_slope, mask=mask)
    tl.store(slope_ptr + at, slope, mask=mask)
    tl.store(intercept_ptr + at, intercept, mask=mask)


@ops.relu_relaxation.implement("triton")
def relu_relaxation(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As ``glsk.ops.relu_relaxation``."""
    lower, upper = lower.contiguous(), upper.contiguous()
    result = torch.empty_like(lower), torch.empty_like(lower), torch.empty_like(lower)
    if lower.numel():
        with on(lower):
            grid = (triton.cdiv(lower.numel(), BLOCK),)
            relu_relaxation_kernel[grid](lower, upper, *result, lower.numel(), BLOCK=BLOCK, num_warps=4)
    return result


@triton.jit(do_not_specialize=["units", "channels", "slopes"])
def channel_last_slopes_kernel(
    lower_ptr, upper_ptr, slopes_ptr, units, channels, slopes, HBOX: tl.constexpr, BLOCK: tl.constexpr
):
    """Slopes and intercepts [.., 2, slopes] of one layer, in row, column, channel order; HBox: only the active mask."""
    pair = tl.program_id(0).to(tl.int64)
    unit = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = unit < units
    source = unit % channels * (units // channels) + unit // channels
    lower = tl.load(lower_ptr + pair * units + source, mask=mask, other=0.0)
    upper = tl.load(upper_ptr + pair * units + source, mask=mask, other=0.0)
    if HBOX:
        kept = tl.where(lower >= 0.0, 1.0, 0.0) + poison(lower, upper)
        tl.store(slopes_ptr + pair * slopes + unit, kept, mask=mask)
    else:
        slope, intercept = upper_line(lower, upper)
        tl.store(slopes_ptr + 2 * pair * slopes + unit, slope, mask=mask)
        tl.store(slopes_ptr + (2 * pair + 1) * slopes + unit, intercept, mask=mask)


def channel_last_slopes(
    plan: Plan, layers: list, lowers: list[Tensor], uppers: list[Tensor], pairs: int, hbox: bool
) -> Tensor:
    """The slopes of every layer that a ReLU follows, [pairs, 2, plan.slopes] (HBox: [pairs, 1, plan.slopes])."""
    device = lowers[0].device if lowers else None
    slopes = torch.empty(pairs, 1 if hbox else 2, plan.slopes, dtype=torch.float32, device=device)
    for layer, lower, upper, offset in zip(spatial(layers), lowers, uppers, plan.slope_offsets, strict=False):
        if layer.relu:
            grid = (pairs, triton.cdiv(layer.out_features, BLOCK))
            channel_last_slopes_kernel[grid](
                lower.contiguous(), upper.contiguous(), slopes[:, :, offset:], layer.out_features, layer.out_channels,
                plan.slopes, HBOX=hbox, BLOCK=BLOCK, num_warps=4,
            )  # fmt: skip
    return slopes
