"""The ReLU of the hybrid zonotope."""

import torch
import triton
import triton.language as tl
from glsk.kernels.launch import on
from torch import Tensor

from glsk import ops

BLOCK = 1024


@triton.jit
def hbox_relu_kernel(
    box_lower_ptr, box_upper_ptr, lower_ptr, upper_ptr, out_lower_ptr, out_upper_ptr, size,
    LEAK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < size
    lower = tl.load(lower_ptr + at, mask=mask, other=0.0)
    upper = tl.load(upper_ptr + at, mask=mask, other=0.0)
    finite = (tl.abs(lower) < float("inf")) & (tl.abs(upper) < float("inf"))
    active, upper = lower >= 0.0, tl.maximum(upper, 0.0)
    box_lower = tl.load(box_lower_ptr + at, mask=mask, other=0.0)
    box_upper = tl.load(box_upper_ptr + at, mask=mask, other=0.0)
    low, high = tl.where(active, box_lower, 0.0), tl.where(active, box_upper, upper)
    if LEAK != 0.0:
        low, high = LEAK * box_lower + (1.0 - LEAK) * low, LEAK * box_upper + (1.0 - LEAK) * high
    tl.store(out_lower_ptr + at, tl.where(finite, low, float("nan")), mask=mask)
    tl.store(out_upper_ptr + at, tl.where(finite, high, float("nan")), mask=mask)


@ops.hbox_relu.implement("triton")
def hbox_relu(box_lower: Tensor, box_upper: Tensor, lower: Tensor, upper: Tensor, leak: float) -> tuple[Tensor, Tensor]:
    """As ``glsk.ops.hbox_relu``."""
    operands = [t.contiguous() for t in (box_lower, box_upper, lower, upper)]
    result = torch.empty_like(operands[0]), torch.empty_like(operands[0])
    if lower.numel():
        with on(lower):
            grid = (triton.cdiv(lower.numel(), BLOCK),)
            hbox_relu_kernel[grid](*operands, *result, lower.numel(), LEAK=float(leak), BLOCK=BLOCK, num_warps=4)
    return result
