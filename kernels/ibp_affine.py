"""One step of interval bound propagation: centre and radius through a layer in one pass over the box.

An implicit GEMM a member: rows are (sample, output position), the depth runs over the kernel, columns are channels. The
tile of weights is loaded once for W c and |W| r.
"""

import triton
import triton.language as tl
from glsk.kernels import config
from glsk.kernels.launch import member_stride, on, precision, rows_contiguous
from torch import Tensor

from glsk import ops
from glsk.geometry import decode


@triton.jit(do_not_specialize=["samples", "x_member", "x_sample", "weight_member", "bias_member", "bias_channel"])
def ibp_affine_kernel(
    lower_ptr, upper_ptr, x_member, x_sample, weight_ptr, weight_member, bias_ptr, bias_member, bias_channel,
    out_lower_ptr, out_upper_ptr, samples,
    L: tl.constexpr, RELU: tl.constexpr, LEAK: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    POSITIONS: tl.constexpr = L.out_height * L.out_width
    K: tl.constexpr = L.in_channels * L.kernel_height * L.kernel_width
    member = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    sample, position = row // POSITIONS, row % POSITIONS
    exists = sample < samples
    channel = tl.program_id(2) * BLOCK_N + tl.arange(0, BLOCK_N)
    top = position // L.out_width * L.stride_height - L.pad_height
    left = position % L.out_width * L.stride_width - L.pad_width
    first = tl.program_id(0).to(tl.int64) * BLOCK_M // POSITIONS
    lower_ptr += member * x_member + first * x_sample
    upper_ptr += member * x_member + first * x_sample
    box = (sample - first).to(tl.int32) * x_sample  # a tile's own samples: never far
    weight_ptr += member * weight_member
    center = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    radius = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for start in range(0, K, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        y = top[:, None] + (k // L.kernel_width % L.kernel_height)[None, :]
        x = left[:, None] + (k % L.kernel_width)[None, :]
        mask = exists[:, None] & (k < K)[None, :] & (y >= 0) & (y < L.in_height) & (x >= 0) & (x < L.in_width)
        at = box[:, None] + ((k // (L.kernel_height * L.kernel_width))[None, :] * L.in_height + y) * L.in_width + x
        lower = tl.load(lower_ptr + at, mask=mask, other=0.0)
        upper = tl.load(upper_ptr + at, mask=mask, other=0.0)
        if RELU:
            finite = (tl.abs(lower) < float("inf")) & (tl.abs(upper) < float("inf"))
            lower = tl.where(finite, tl.where(lower < 0.0, LEAK * lower, lower), float("nan"))
            upper = tl.where(finite, tl.where(upper < 0.0, LEAK * upper, upper), float("nan"))
        w = tl.load(
            weight_ptr + channel[None, :] * K + k[:, None],
            mask=(channel < L.out_channels)[None, :] & (k < K)[:, None],
            other=0.0,
        )
        center = tl.dot(lower * 0.5 + upper * 0.5, w, center, input_precision=PRECISION)
        radius = tl.dot(upper * 0.5 - lower * 0.5, tl.abs(w), radius, input_precision=PRECISION)
    kept = (channel < L.out_channels)[None, :] & exists[:, None]
    bias = tl.load(bias_ptr + member * bias_member + channel * bias_channel, mask=channel < L.out_channels, other=0.0)
    center += bias[None, :]
    base = (member * samples + first) * (L.out_channels * POSITIONS)
    own = (sample - first).to(tl.int32) * (L.out_channels * POSITIONS) + position
    out = own[:, None] + channel[None, :] * POSITIONS
    lower, upper = center - radius, center + radius
    # Nothing finite lies above +inf or below -inf: something overflowed.
    tl.store(out_lower_ptr + base + out, tl.where(lower == float("inf"), float("nan"), lower), mask=kept)
    tl.store(out_upper_ptr + base + out, tl.where(upper == float("-inf"), float("nan"), upper), mask=kept)


@ops.ibp_affine.implement("triton")
def ibp_affine(
    lower: Tensor, upper: Tensor, weight: Tensor, bias: Tensor, geometry: list[int], relu: bool, leak: float
) -> tuple[Tensor, Tensor]:
    """As ``glsk.ops.ibp_affine``."""
    (layer,) = decode(geometry)
    members, samples = weight.shape[0], lower.shape[1]
    shape = (members, samples, layer.out_features)
    out_lower, out_upper = lower.new_empty(shape), lower.new_empty(shape)
    if not out_lower.numel():
        return out_lower, out_upper
    lower, upper = (t if t.stride(2) == 1 else t.contiguous() for t in (lower, upper))
    if lower.stride() != upper.stride() or lower.shape != upper.shape:
        lower, upper = (t.expand(members, -1, -1).contiguous() for t in (lower, upper))
    weight = rows_contiguous(weight)
    tile = config.ibp_tile(layer)
    rows = samples * layer.out_height * layer.out_width
    grid = (triton.cdiv(rows, tile.block_m), members, triton.cdiv(layer.out_channels, tile.block_n))
    with on(lower):
        ibp_affine_kernel[grid](
            lower, upper, member_stride(lower), lower.stride(1), weight, member_stride(weight),
            bias, bias.stride(0), bias.stride(1), out_lower, out_upper, samples,
            L=layer, RELU=relu, LEAK=float(leak), PRECISION=precision(),
            BLOCK_M=tile.block_m, BLOCK_N=tile.block_n, BLOCK_K=tile.block_k, num_warps=tile.warps,
        )  # fmt: skip
    return out_lower, out_upper
