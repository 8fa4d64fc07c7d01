"""Each member's weights, once a pass, as the matrices that the engine multiplies by."""

import triton
import triton.language as tl
from glsk.kernels.launch import member_stride, rows_contiguous
from glsk.kernels.shape import Plan
from torch import Tensor

BLOCK = 1024


@triton.jit
def pack_stage_kernel(
    weight_ptr, packed_ptr, weight_member, G: tl.constexpr, PACKED: tl.constexpr, SPLIT: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """One product's matrix [n, k]: the kernel's weight between phase n of a block and tap k, 0 where there is none.

    SPLIT: the part of each weight that TF32 holds, and behind that matrix another with the rest.
    """
    member = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    n, k = at // (G.k_tiles * G.block_k), at % (G.k_tiles * G.block_k)
    n_y, n_x, n_c = n // (G.x.phases * G.in_channels), n // G.in_channels % G.x.phases, n % G.in_channels
    k_y, k_x, k_c = k // (G.x.taps * G.out_channels), k // G.out_channels % G.x.taps, k % G.out_channels
    y = n_y - k_y * G.y.stride + G.y.tap0
    x = n_x - k_x * G.x.stride + G.x.tap0
    mask = (n < G.n) & (k < G.k) & (y >= 0) & (y < G.y.kernel) & (x >= 0) & (x < G.x.kernel)
    source = ((k_c * G.in_channels + n_c) * G.y.kernel + y) * G.x.kernel + x
    value = tl.load(weight_ptr + member * weight_member + source, mask=mask, other=0.0)
    high = (value.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)
    packed_ptr += member * PACKED + G.weight + at
    tl.store(packed_ptr, high if SPLIT else value, mask=at < G.packed)
    if SPLIT:
        tl.store(packed_ptr + G.packed, value - high, mask=at < G.packed)


@triton.jit(do_not_specialize=["weight_member", "bias_member", "bias_channel"])
def pack_first_kernel(
    weight_ptr, bias_ptr, packed_ptr, weight_member, bias_member, bias_channel, offset, bias_offset,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr, PIXELS: tl.constexpr, PACKED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One layer's bias, and its weights with channels last (CHANNELS = 0: only the bias)."""
    member = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    bias = tl.load(bias_ptr + member * bias_member + at * bias_channel, mask=at < ROWS, other=0.0)
    tl.store(packed_ptr + member * PACKED + bias_offset + at, bias, mask=at < ROWS)
    if CHANNELS > 0:
        row, unit = at // (CHANNELS * PIXELS), at % (CHANNELS * PIXELS)
        source = (row * CHANNELS + unit % CHANNELS) * PIXELS + unit // CHANNELS
        mask = at < ROWS * CHANNELS * PIXELS
        value = tl.load(weight_ptr + member * weight_member + source, mask=mask, other=0.0)
        tl.store(packed_ptr + member * PACKED + offset + at, value, mask=mask)


def pack(plan: Plan, weights: list[Tensor], biases: list[Tensor], precision: str) -> Tensor:
    """[P, plan.packed] from weights [P, Cout, Cin, kh, kw] and biases [P, Cout]."""
    members = weights[0].shape[0]
    packed = weights[0].new_empty(members, plan.packed)
    weights = [rows_contiguous(weight) for weight in weights]
    for stage in plan.stages:
        weight = weights[stage.layer]
        grid = (members, triton.cdiv(stage.packed, BLOCK))
        pack_stage_kernel[grid](
            weight, packed, member_stride(weight), stage, plan.packed, SPLIT=precision == "tf32x3", BLOCK=BLOCK,
            num_warps=4,
        )  # fmt: skip
    start, top = plan.start, len(weights) - 1
    for j, weight in enumerate(weights):
        own = j == top and not start.from_C
        bias = biases[j]
        rows = weight.shape[1]
        units = start.units if own else 0
        channels = start.channels if own else 0
        grid = (members, triton.cdiv(rows * max(units, 1), BLOCK))
        pack_first_kernel[grid](
            weight, bias, packed, member_stride(weight), bias.stride(0), bias.stride(1), start.first,
            plan.bias_offsets[j], rows, channels, units // max(channels, 1), plan.packed, BLOCK=BLOCK, num_warps=4,
        )  # fmt: skip
    return packed
