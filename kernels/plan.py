"""The shape of a pass: which window of each layer a row reaches, and the matrix product that carries it one layer down.

Back-substitution through a convolution is a transposed convolution. Its output pixels are cut into blocks of
``step * stride`` pixels a side; every block reads the same pattern of ``taps`` x ``taps`` positions of the layer's
output, so one small matrix a member, [phases * in_channels, taps * out_channels], serves every block of every row of
every sample: a plain GEMM whose long side is (block, row). With ``step`` > 1 that matrix is a Toeplitz expansion of the
kernel, which gives a layer with few input channels columns enough for tensor cores.

A row of a convolution reaches only a window, whose origin is ``origin * stride - padding`` one layer down: all rows
share one pattern, each with its own origin. Once a window is as large as the image, the whole image stands for it.
A linear layer after a convolution is a convolution whose kernel is the image.
"""

import math
from collections.abc import Sequence
from functools import cache

from glsk.kernels import config
from glsk.kernels.shape import Axis, Plan, Stage, Start

from glsk.geometry import Geometry


def spatial(layers: Sequence[Geometry]) -> list[Geometry]:
    """The layers, a linear one after a convolution rewritten as the convolution whose kernel is the image."""
    result: list[Geometry] = []
    for layer in layers:
        if result and layer.is_linear:
            below = result[-1]
            height, width = below.out_height, below.out_width
            layer = layer._replace(
                in_channels=below.out_channels,
                in_height=height,
                in_width=width,
                kernel_height=height,
                kernel_width=width,
            )
        result.append(layer)
    return result


@cache
def make_plan(layers: tuple[Geometry, ...], from_C: bool, row_limit: int, aim: config.Target, lines: int = 2) -> Plan:
    """The plan of a pass over ``layers``.

    Args:
        from_C: whether rows are those of C, not the last layer's units.
        row_limit: one-sided rows of a pair.
        aim: what it is compiled for.
        lines: values a unit that its ReLU step reads: 2 of CROWN's lines, 4 of any.
    """
    chain = spatial(layers)
    slope_offsets, bias_offsets, slopes, packed = [], [], 0, 0
    for layer in chain:
        slope_offsets.append(slopes)
        bias_offsets.append(packed)
        slopes += _aligned(layer.out_features) if layer.relu and layer is not chain[-1] else 0
        packed += _aligned(layer.out_channels)

    def below(j: int) -> tuple[bool, int, int]:
        """relu, slopes and bias of layer j - 1."""
        return (bool(chain[j - 1].relu), slope_offsets[j - 1], bias_offsets[j - 1]) if j else (False, 0, 0)

    top = chain[-1]
    first = packed
    if from_C:
        start_units, window = top.out_features, ((top.out_height, True), (top.out_width, True))
        relu, slope, bias = False, 0, bias_offsets[-1]
        pending = list(range(len(chain)))
    else:
        start_units = top.kernel_height * top.kernel_width * top.in_channels
        packed += _aligned(top.out_channels * start_units)
        window = tuple(
            (kernel, out == 1 and pad == 0 and kernel == image)
            for kernel, out, pad, image in (
                (top.kernel_height, top.out_height, top.pad_height, top.in_height),
                (top.kernel_width, top.out_width, top.pad_width, top.in_width),
            )
        )
        relu, slope, bias = below(len(chain) - 1)
        pending = list(range(len(chain) - 1))

    aim = config.for_depth(aim, len(pending), lines)
    shapes: list[tuple[int, Axis, Axis]] = []
    for j in reversed(pending):
        y, x = _axes(chain[j], window, aim)
        shapes.append((j, y, x))
        window = ((y.i_window, y.i_whole), (x.i_window, x.i_whole))

    sizes = [start_units] + [y.i_window * x.i_window * chain[j].in_channels for j, y, x in shapes[:-1]]
    rows = config.rows(sizes, row_limit, aim)
    # Products alternate between two halves of the scratch.
    halves = [max(sizes[0::2]), max(sizes[1::2], default=0)]
    stages = []
    for depth, (j, y, x) in enumerate(shapes):
        n = y.phases * x.phases * chain[j].in_channels
        k = y.taps * x.taps * chain[j].out_channels
        tile = config.tile(n, k, y.blocks * x.blocks, rows, aim)
        reads, writes = (0, rows * halves[0]) if depth % 2 == 0 else (rows * halves[0], 0)
        relu_below, slope_below, bias_below = below(j)
        stages.append(
            Stage(
                j, y, x, chain[j].in_channels, chain[j].out_channels, n, k,
                tile.block_n, tile.block_k, tile.positions, tile.pipeline,
                packed, reads, writes, relu_below, slope_below, bias_below,
            )
        )  # fmt: skip
        packed += 2 * stages[-1].packed  # high and low parts
    start = Start(
        from_C, top.kernel_height, top.kernel_width, top.out_channels if from_C else top.in_channels,
        top.stride_height, top.stride_width, top.pad_height, top.pad_width, top.out_height, top.out_width,
        top.in_height, top.in_width, start_units, config.start_block(rows), first, bias_offsets[-1],
        relu, slope, bias, not pending,
    )  # fmt: skip
    scratch = rows * sum(halves) if stages else 0
    return Plan(
        start, tuple(stages), rows, scratch, packed, slopes, tuple(slope_offsets), tuple(bias_offsets), aim.warps
    )


def _aligned(count: int) -> int:
    """Rounded up to whole 64-byte lines of float32."""
    return -(-count // 16) * 16


def _axes(layer: Geometry, window: Sequence[tuple[int, bool]], aim: config.Target) -> tuple[Axis, Axis]:
    """The two axes, cut into the blocks that cost least together."""
    height = (layer.kernel_height, layer.stride_height, layer.pad_height, layer.in_height, layer.out_height)
    width = (layer.kernel_width, layer.stride_width, layer.pad_width, layer.in_width, layer.out_width)
    choices = [(y, x) for y in _cuts(*height, *window[0]) for x in _cuts(*width, *window[1])]
    return min(choices, key=lambda axes: _cost(layer, *axes, aim))


def _cost(layer: Geometry, y: Axis, x: Axis, aim: config.Target) -> float:
    n, k = y.phases * x.phases * layer.in_channels, y.taps * x.taps * layer.out_channels
    return y.blocks * x.blocks * config.block_cost(n, k, aim)


def _cuts(kernel: int, stride: int, padding: int, image: int, out: int, q_window: int, q_whole: bool) -> list[Axis]:
    """Every way to cut one axis into blocks."""
    natural = (q_window - 1) * stride + kernel
    i_whole = q_whole or natural >= image
    i_window = image if i_whole else natural
    positions = out if i_whole else q_window
    common = (kernel, stride, padding, image, q_window, i_window, q_whole, i_whole)
    # One block that holds the window, reading every position.
    cuts = [Axis(*common, 0, positions, 1, i_window, 0, 0, padding if i_whole else 0)]
    reach = math.ceil(kernel / stride)
    q0 = padding // stride if i_whole else 0
    offset = q0 * stride - padding if i_whole else 0
    for step in config.STEPS:
        phases = stride * step
        if phases < i_window:
            blocks = math.ceil((i_window - offset) / phases)
            cuts.append(
                Axis(*common, step, step + reach - 1, blocks, phases, q0 - reach + 1, offset, (reach - 1) * stride)
            )
    return cuts
