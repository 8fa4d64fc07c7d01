"""What the gradient of a pass (csrc/cuda/pass_general_backward.cu) should cost on an H100. Not yet measured on a GPU.

Counted from shapes: a row goes down, up, and into the products, each as many multiply-adds as the pass itself, as many
lanes at a time as a group has, whether or not there are rows for all. What a thread block keeps lies in shared memory,
or goes through L2.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.cost_cuda import CLOCK, HBM, L2, MULTIPROCESSORS, SHARED_LIMIT, Window, below, taps_within
from glsk.geometry import Geometry

FMA = 128 * MULTIPROCESSORS * CLOCK
SHARE = {2: 0.3, 1: 0.2}
"""Assumed, of the peak, by how many thread blocks a multiprocessor holds: multiply-adds among the hot loops'
instructions (about 0.4 in the code for sm_90), issued in three of four cycles with two warps a partition."""
VISITS = 8
"""Times that a coefficient or value of a lane is written or read again from the L2 cache, where it lies there: as a
coefficient before its line and after it, kept, with the upstream gradient, in the products; as a value before its line
and after it, and in the products. Neighbours' reads within a loop are the L1 cache's."""
GLOBAL_LANES = 32
PARTS = {4: 24 * 129, 16: 48 * 129, 32: 48 * 129}
"""Floats of shared memory in which a thread block's threads exchange parts of a weight's gradient, by lanes."""
LISTS = 4 * (2 * 256 + 129)
"""Bytes of the lists of rows."""


@dataclass(frozen=True)
class Layout:
    """As in csrc/cuda/pass_general_backward.cu, for float32."""

    on_chip: bool
    lanes: int
    shared: int
    """Bytes of a thread block."""

    @property
    def blocks(self) -> int:
        """Of a multiprocessor: two by their registers."""
        return min(2, SHARED_LIMIT // (self.shared + 1024))


def layout(layers: Sequence[Geometry], spec_rows: int | None, limit: int = SHARED_LIMIT) -> Layout:
    """What a device with so many bytes of shared memory a thread block takes."""
    own, last = spec_rows is None, layers[-1]
    lanes = 16 if own else 4
    window: Window = (range(last.out_height), range(last.out_width))
    units = [] if own else [last.out_features]
    height, width = (1, 1) if own else (len(window[0]), len(window[1]))
    for k in range(len(layers) - 1, -1, -1):
        layer = layers[k]
        if k + 1 < len(layers) and layers[k + 1].in_channels != layer.out_channels:
            height, width = layer.out_height, layer.out_width
        height = min(layer.in_height, (height - 1) * layer.stride_height + layer.kernel_height)
        width = min(layer.in_width, (width - 1) * layer.stride_width + layer.kernel_width)
        if not own:
            height, width = layer.in_height, layer.in_width
        units.append(layer.in_channels * height * width)
    weights = sum(
        layer.out_channels * (layer.in_channels * layer.kernel_height * layer.kernel_width + 1) for layer in layers
    )
    floats = lanes * (2 * max(units) + sum(units)) + (-(-weights // 32) * 32 if own else 0)
    for count, more in ((lanes, floats), (GLOBAL_LANES, 0)):
        shared = -(-4 * (count + PARTS[count] + more) // 16) * 16 + 16 * len(layers) + 16 * count + LISTS
        if shared <= limit:
            break
    return Layout(count == lanes, count, shared)


@dataclass(frozen=True)
class Cost:
    """Of the gradient of one pass, for one (member, sample), every row with a gradient."""

    lanes: int
    where: Layout
    useful: float
    executed: float
    l2: float
    hbm: float

    @property
    def times(self) -> dict[str, float]:
        """Seconds that each resource is busy on a whole device."""
        return {"FP32": self.executed / FMA / SHARE[self.where.blocks], "L2": self.l2 / L2, "HBM": self.hbm / HBM}

    @property
    def seconds(self) -> float:
        return max(self.times.values())


def cost(layers: Sequence[Geometry], spec_rows: int | None) -> Cost:
    """Both sides of the last layer's outputs, or the lower bounds of ``spec_rows`` rows of C."""
    last, where = layers[-1], layout(layers, spec_rows)
    lanes = 2 * last.out_features if spec_rows is None else spec_rows
    groups = -(-lanes // where.lanes)
    if where.on_chip and spec_rows is None:  # a group's rows are of one position
        groups = last.out_height * last.out_width * -(-2 * last.out_channels // where.lanes)
    y, x = last.out_height // 2, last.out_width // 2
    window: Window = (range(y, y + 1), range(x, x + 1))  # of an inner row; with C, of the one pixel of the logits
    macs, units, hidden = 0.0, 0, 0
    for k in range(len(layers) - 1, -1, -1):
        layer, down = layers[k], below(layers[k], window)
        channels = layer.in_channels * (1 if k == len(layers) - 1 and spec_rows is None else layer.out_channels)
        macs += taps_within(layer, window, down) * channels
        units += len(down[0]) * len(down[1]) * layer.in_channels
        hidden += len(down[0]) * len(down[1]) * layer.in_channels if k else 0
        window = down
        if k and layers[k - 1].out_channels != layer.in_channels:  # beneath a linear layer: the whole image
            window = range(layers[k - 1].out_height), range(layers[k - 1].out_width)
    bounds = sum(layer.out_features for layer in layers[:-1])
    hbm = 4 * (4 * bounds + 2 * layers[0].in_features + lanes)  # bounds and their gradients, the box, upstream
    padded = where.lanes * groups
    # On chip only gradients of the bounds, two a unit, are read and written in global memory.
    l2 = 4.0 * 2 * 2 * hidden * groups if where.on_chip else 4.0 * VISITS * units * padded
    return Cost(lanes, where, 3 * macs * lanes, 3 * macs * padded, l2, hbm)
