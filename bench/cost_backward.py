"""What the gradient of a pass (csrc/cuda/pass_general_backward.cu) should cost on an H100. Not yet measured on a GPU.

Counted from shapes: a row goes down, up, and into the products, each as many multiply-adds as the pass itself, 32 lanes
at a time whether or not there are rows for all; and what a thread block keeps in global memory goes through L2.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.cost_cuda import CLOCK, HBM, L2, MULTIPROCESSORS, Window, below, taps_within
from glsk.geometry import Geometry

LANES = 32
FMA = 128 * MULTIPROCESSORS * CLOCK
SHARE = 0.3
"""Assumed, of the peak: multiply-adds among the hot loops' instructions (about 0.6), with two warps a partition."""
VISITS = 8
"""Times that a coefficient or value of a lane is written or read again from the L2 cache: as a coefficient before its
line and after it, kept, with the upstream gradient, in the products; as a value before its line and after it, and in
the products. Neighbours' reads within a loop are the L1 cache's."""


@dataclass(frozen=True)
class Cost:
    """Of the gradient of one pass, for one (member, sample), every row with a gradient."""

    lanes: int
    groups: int
    useful: float
    executed: float
    l2: float
    hbm: float

    @property
    def times(self) -> dict[str, float]:
        """Seconds that each resource is busy on a whole device."""
        return {"FP32": self.executed / FMA / SHARE, "L2": self.l2 / L2, "HBM": self.hbm / HBM}

    @property
    def seconds(self) -> float:
        return max(self.times.values())


def cost(layers: Sequence[Geometry], spec_rows: int | None) -> Cost:
    """Both sides of the last layer's outputs, or the lower bounds of ``spec_rows`` rows of C."""
    last = layers[-1]
    lanes = 2 * last.out_features if spec_rows is None else spec_rows
    groups = -(-lanes // LANES)
    y, x = last.out_height // 2, last.out_width // 2
    window: Window = (range(y, y + 1), range(x, x + 1))  # of an inner row; with C, of the one pixel of the logits
    macs, units = 0.0, 0
    for k in range(len(layers) - 1, -1, -1):
        layer, down = layers[k], below(layers[k], window)
        channels = layer.in_channels * (1 if k == len(layers) - 1 and spec_rows is None else layer.out_channels)
        macs += taps_within(layer, window, down) * channels
        units += len(down[0]) * len(down[1]) * layer.in_channels
        window = down
        if k and layers[k - 1].out_channels != layer.in_channels:  # beneath a linear layer: the whole image
            window = range(layers[k - 1].out_height), range(layers[k - 1].out_width)
    bounds = sum(layer.out_features for layer in layers[:-1])
    hbm = 4 * (4 * bounds + 2 * layers[0].in_features + lanes)  # bounds and their gradients, the box, upstream
    executed = 3 * macs * LANES * groups
    return Cost(lanes, groups, 3 * macs * lanes, executed, 4.0 * VISITS * units * LANES * groups, hbm)
