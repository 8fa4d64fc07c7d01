"""The rows that a pass need not compute: those whose ReLU known bounds already prove stable."""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024


@triton.jit(do_not_specialize=["R"])
def unstable_rows_kernel(
    known_lower_ptr, known_upper_ptr, lower_ptr, upper_ptr, units_ptr, counts_ptr, R, UPPER: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """For one (member, sample): the unstable rows, ascending; the others get their known bounds here."""
    pair = tl.program_id(0).to(tl.int64)
    count, start = pair * 0, pair * 0
    while start < R:
        row = start + tl.arange(0, BLOCK)
        inside = row < R
        lower = tl.load(known_lower_ptr + pair * R + row, mask=inside, other=0.0)
        upper = tl.load(known_upper_ptr + pair * R + row, mask=inside, other=0.0)
        stable = inside & ((lower >= 0.0) | (upper <= 0.0))
        tl.store(lower_ptr + pair * R + row, lower, mask=stable)
        if UPPER:
            tl.store(upper_ptr + pair * R + row, upper, mask=stable)
        wanted = (inside & ~stable).to(tl.int32)
        place = count + tl.cumsum(wanted, axis=0) - 1
        tl.store(units_ptr + pair * R + place, row, mask=wanted > 0)
        count += tl.sum(wanted, axis=0)
        start += BLOCK
    tl.store(counts_ptr + pair, count)


def unstable_rows(
    known_lower: Tensor, known_upper: Tensor, lower: Tensor, upper: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Rows [P, B, R] that are not proven stable and their number [P, B]; writes the others' known bounds.

    No count is read back to the host: the engine's programs look it up.
    """
    known_lower, known_upper = known_lower.contiguous(), known_upper.contiguous()
    units = torch.empty_like(lower, dtype=torch.int32)
    counts = torch.empty(lower.shape[:2], dtype=torch.int32, device=lower.device)
    unstable_rows_kernel[(counts.numel(),)](
        known_lower, known_upper, lower, lower if upper is None else upper, units, counts, lower.shape[2],
        UPPER=upper is not None, BLOCK=BLOCK, num_warps=4,
    )  # fmt: skip
    return units, counts
