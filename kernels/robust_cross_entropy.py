"""The robust cross-entropy of a population: one program a member, samples summed in a fixed order."""

import triton
import triton.language as tl
from glsk.kernels.launch import on
from torch import Tensor

from glsk import ops

BLOCK = 128


@triton.jit(do_not_specialize=["samples"])
def robust_cross_entropy_kernel(
    margin_ptr, loss_ptr, samples, S: tl.constexpr, S_PADDED: tl.constexpr, BLOCK: tl.constexpr
):
    member = tl.program_id(0).to(tl.int64)
    total = tl.zeros([BLOCK], tl.float32)
    column = tl.arange(0, S_PADDED)
    start = member * 0
    while start < samples:
        sample = start + tl.arange(0, BLOCK)
        inside = sample < samples
        at = (member * samples + sample)[:, None] * S + column[None, :]
        margin = tl.load(margin_ptr + at, mask=inside[:, None] & (column < S)[None, :], other=float("inf"))
        # ln(1 + sum exp(-m)) = top + ln(exp(-top) + sum exp(-m - top)), top = max(0, max -m)
        top = tl.maximum(tl.max(-margin, axis=1), 0.0)
        inner = tl.exp(-top) + tl.sum(tl.exp(-margin - top[:, None]), axis=1)
        total += tl.where(inside, top + tl.log(inner), 0.0)
        start += BLOCK
    tl.store(loss_ptr + member, tl.sum(total, axis=0) / samples)


@ops.robust_cross_entropy.implement("triton")
def robust_cross_entropy(margin_lower: Tensor) -> Tensor:
    """As ``glsk.ops.robust_cross_entropy``."""
    members, samples, S = margin_lower.shape
    loss = margin_lower.new_empty(members)
    with on(loss):
        robust_cross_entropy_kernel[(members,)](
            margin_lower.contiguous(), loss, samples, S, triton.next_power_of_2(S), BLOCK=BLOCK, num_warps=4
        )
    return loss
