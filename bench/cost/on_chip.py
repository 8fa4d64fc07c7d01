"""The CUDA kernels that keep a whole pass on chip: csrc/cuda/pass_patch.cu and pass_margins.cu say what is counted."""

from collections.abc import Sequence

from bench.cost.device import Cost, Work, resident
from bench.cost.sass import Compiled
from bench.cost.windows import useful
from glsk.geometry import Geometry

THREADS = 128
LANES = 9  # of the margins kernel


def patch(layers: Sequence[Geometry], code: Compiled) -> Cost:
    """Both sides of a convolution that reads a convolution: a thread a row and side, its patch in registers."""
    first, second = layers
    k1, k2 = first.kernel_height, second.kernel_height
    lanes = 2 * second.out_features
    taps2, taps1 = k2 * k2 * first.out_channels, k1 * k1 * first.in_channels
    side = (k2 - 1) * first.stride_height + k1
    executed = lanes * (taps2 * (taps1 + 2 * first.in_channels) + 2 * side * side * first.in_channels)
    # A tap: its step and weight; the first layer's weights, one for all lanes, their last row again every row of taps.
    a_tap = 8 + 4 + 4 * (k1 / k2 + (k1 - 1) * k1 / 4 / k2**2)
    shared = lanes * first.in_channels * (taps2 * a_tap + 8 * side * side)
    hidden = ((second.out_height - 1) * second.stride_height + k2) * ((second.out_width - 1) * second.stride_width + k2)
    box = ((second.out_height - 1) * second.stride_height + k2 - 1) * first.stride_height + k1
    w2 = first.out_channels * second.out_channels * (k2 * -(-k2 // 4) * 4 + 4)
    floats = 4 * first.out_channels * hidden + w2 + first.in_channels * first.out_channels * -(-k1 * k1 // 4) * 4
    floats += 2 * first.in_channels * box * box + second.out_channels + min(second.out_features, 1024) + THREADS + 1
    name = f"patch_kernelILb{int(first.in_channels == 1)}"
    hbm = 4 * (2 * first.out_features + lanes)
    where = f"{side} x {side} coefficients a thread, in registers"
    return _cost("CUDA patch", where, layers, None, executed, shared, hbm, code, name, k2 * k2 * k1 * k1, floats)


def margins(layers: Sequence[Geometry], rows: int, code: Compiled) -> Cost:
    """Lower bounds of rows of C through a linear layer and two convolutions: nine a block, all in shared memory."""
    first, second, last = layers
    lanes = -(-rows // LANES) * LANES
    k1, k2, s1 = first.kernel_height, second.kernel_height, first.stride_height
    channels = -(-first.out_channels // 4) * 4
    through_linear = last.in_channels * last.out_channels
    through_second = second.out_features * k2 * k2 * channels
    tiles = (-(-(-(-(first.in_height + first.pad_height) // s1) - first.pad_height // s1) // 2)) ** 2
    through_first = first.in_channels * tiles * (2 * s1) ** 2 * first.out_channels * k1 * k1 / s1**2
    executed = lanes * (through_linear + through_second + through_first + 2 * first.in_features)
    # Step 2 reads 9 coefficients and 4 times 4 weights, one for all cells, for 144 multiply-adds; step 3 reads 16 times
    # 3 and 7 times 4 for 300.
    shared = lanes * (through_second * (36 + 16) / 144 + through_first * (192 + 28) / 300)
    up = lambda count: -(-count // 4) * 4  # noqa: E731
    floats = second.out_channels * k2 * k2 * channels + first.in_channels * first.out_channels * up(k1 * k1)
    floats += up(first.out_features * LANES) + up(max(second.out_features, THREADS + 8) * LANES)
    floats += last.out_channels * LANES
    hbm = 4 * (2 * (first.out_features + second.out_features) + rows)
    where = f"{LANES} rows a block, in shared memory"
    return _cost("CUDA margins", where, layers, rows, executed, shared, hbm, code, "margins_kernel", 144, floats)


def _cost(
    kernel: str, where: str, layers: Sequence[Geometry], rows: int | None, executed: float, shared: float, hbm: float,
    code: Compiled, name: str, least: int, floats: int,
) -> Cost:  # fmt: skip
    issued = executed / 32 / code.fma_share(name, least)
    work = Work(useful(layers, rows), executed, fma=executed, instructions=issued, shared=shared, hbm=hbm)
    registers = code.registers(name)
    return Cost(kernel, where, work, resident(registers, 4 * floats, THREADS // 32), registers)
