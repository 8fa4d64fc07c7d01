"""Networks and bounds near the end of float32's range, for the tests of every backend."""

import math

from torch import nn

# Weight and bias of linear layers of one unit with ReLUs between, the box, and what the bounds are.
EXTREMES = {
    "a wide hidden interval": ([(2e38, 0.0), (-1e-38, 1.0)], (-1.0, 1.0), (-1.0, 1.0)),
    "a box far out": ([(-1e-38, 1.0)], (2e38, 3e38), (-2.0, -1.0)),
    "a box far out, then a ReLU": ([(1e-38, 0.0), (1.0, 0.5)], (2e38, 3e38), (2.5, 3.5)),
    "a wide box": ([(1e-38, 0.0)], (-3e38, 3e38), (-3.0, 3.0)),
}

# Ends that bound nothing.
NO_BOUNDS = [
    *[(-math.inf, -math.inf), (math.inf, math.inf), (-math.inf, math.inf), (-math.inf, 1.0), (2.0, math.inf)],
    *[(-1.0, math.inf), (math.nan, 1.0), (-1.0, math.nan)],
]


def network(layers: list[tuple[float, float]]) -> nn.Sequential:
    """Of one entry of :data:`EXTREMES`."""
    made: list[nn.Module] = []
    for weight, bias in layers:
        made += [nn.Linear(1, 1), nn.ReLU()]
        made[-2].weight.data.fill_(weight)
        made[-2].bias.data.fill_(bias)
    return nn.Sequential(*made[:-1])
