"""The CUDA gradient of a pass (csrc/cuda/pass_general_backward.cu).

A row goes down, up, and into the products, each as many multiply-adds as the pass itself, as many lanes at a time as a
group has, whether or not there are rows for all. What a thread block keeps lies in shared memory, or goes through L2.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.cost.device import SHARED_LIMIT, Cost, Work, resident
from bench.cost.sass import Compiled
from bench.cost.windows import Window, of_row, useful, whole
from glsk.geometry import Geometry

THREADS = 128
VISITS = 8
"""Times that a coefficient or value of a lane is written or read again from the L2 cache, where it lies there: as a
coefficient before its line and after it, kept, with the upstream gradient, in the products; as a value before its line
and after it, and in the products. Neighbours' reads within a loop are the L1 cache's."""
GLOBAL_LANES = 32
PARTS = {4: 24 * 129, 16: 48 * 129, 32: 48 * 129}
"""Floats of shared memory in which a thread block's threads exchange parts of a weight's gradient, by lanes."""
LISTS = 4 * (2 * 256 + 129)
"""Bytes of the lists of rows."""
HOT = 96
"""Multiply-adds that a loop has at least to be one of those in which the time is spent."""


@dataclass(frozen=True)
class Layout:
    """As in csrc/cuda/pass_general_backward.cu, for float32."""

    on_chip: bool
    lanes: int
    shared: int
    """Bytes of a thread block."""


def layout(layers: Sequence[Geometry], spec_rows: int | None, limit: int = SHARED_LIMIT) -> Layout:
    """What a device with so many bytes of shared memory a thread block takes."""
    own, last = spec_rows is None, layers[-1]
    lanes = 16 if own else 4
    window: Window = whole(last)
    counts = [] if own else [last.out_features]
    height, width = (1, 1) if own else (len(window[0]), len(window[1]))
    for k in range(len(layers) - 1, -1, -1):
        layer = layers[k]
        if k + 1 < len(layers) and layers[k + 1].in_channels != layer.out_channels:
            height, width = layer.out_height, layer.out_width
        height = min(layer.in_height, (height - 1) * layer.stride_height + layer.kernel_height)
        width = min(layer.in_width, (width - 1) * layer.stride_width + layer.kernel_width)
        if not own:
            height, width = layer.in_height, layer.in_width
        counts.append(layer.in_channels * height * width)
    weights = sum(
        layer.out_channels * (layer.in_channels * layer.kernel_height * layer.kernel_width + 1) for layer in layers
    )
    floats = lanes * (2 * max(counts) + sum(counts)) + (-(-weights // 32) * 32 if own else 0)
    for count, more in ((lanes, floats), (GLOBAL_LANES, 0)):
        shared = -(-4 * (count + PARTS[count] + more) // 16) * 16 + 16 * len(layers) + 16 * count + LISTS
        if shared <= limit:
            break
    return Layout(count == lanes, count, shared)


def cost(layers: Sequence[Geometry], spec_rows: int | None, code: Compiled) -> Cost:
    """Both sides of the last layer's outputs, or the lower bounds of ``spec_rows`` rows of C: all have a gradient."""
    last, place, own = layers[-1], layout(layers, spec_rows), spec_rows is None
    lanes = 2 * last.out_features if spec_rows is None else spec_rows
    groups = -(-lanes // place.lanes)
    if place.on_chip and own:  # a group's rows are of one position
        groups = last.out_height * last.out_width * -(-2 * last.out_channels // place.lanes)
    middle = (last.out_height // 2, last.out_width // 2) if own else (0, 0)
    macs, reached = of_row(layers, not own, *middle)  # of an inner row
    executed = 3.0 * macs * place.lanes * groups
    name = f"general_backward_kernelIfLb0ELi{place.lanes}ELb{int(place.on_chip)}"
    registers = code.registers(name)
    # On chip only gradients of the bounds, two a unit, are read and written in global memory.
    a_lane = VISITS * sum(reached) * place.lanes
    l2 = 4.0 * groups * (2 * 2 * sum(reached[:-1]) if place.on_chip else a_lane)
    bounds = sum(layer.out_features for layer in layers[:-1])
    hbm = 4 * (4 * bounds + 2 * layers[0].in_features + lanes)  # bounds and their gradients, the box, upstream
    issued = executed / 32 / code.fma_share(name, HOT)
    work = Work(3.0 * useful(layers, spec_rows), executed, fma=executed, instructions=issued, l2=l2, hbm=hbm)
    where = f"{place.lanes} rows a block, in {'shared memory' if place.on_chip else 'L2'}"
    return Cost("CUDA gradient", where, work, resident(registers, place.shared, THREADS // 32), registers)
