"""Interval bounds of members over boxes of their own, and of a network's last layers over boxes of a hidden layer."""

from torch import Tensor

from glsk import tiled
from glsk.attacks.members import Members
from glsk.bounds import Bounds, Query
from glsk.ops import interval

MEMORY = 1 << 30


def lowest_rows(members: Members, lower: Tensor, upper: Tensor, rows: Tensor) -> Tensor:
    """Lower bounds [P, B, S] of rows [B, S, K] of the logits over boxes [P or 1, B, n]; differentiable."""
    return tiled.output_bounds("IBP", _query(members, lower, upper, rows), MEMORY)[0]


def at_points(members: Members, points: Tensor, rows: Tensor) -> Tensor:
    """Rows [B, S, K] of the logits at points [P, B, S, n], one a row: [P, B, S]; differentiable.

    A point is a box without width, and bounds have fused gradients where a convolution's by its inputs is slow: on a
    CPU the value and all gradients, of CNN3's last two layers, take half the time of PyTorch's.
    """
    boxes = points.flatten(1, 2)
    return lowest_rows(members, boxes, boxes, rows.flatten(0, 1).unsqueeze(1)).view(points.shape[:3])


def outputs(members: Members, lower: Tensor, upper: Tensor) -> Bounds:
    """The box [P, B, out] of the last layer's outputs after the activation that follows it; differentiable."""
    layer = members.layers[-1]
    found, greatest = tiled.output_bounds("IBP", _query(members, lower, upper, None), MEMORY)
    assert greatest is not None
    return interval.activation(found, greatest, members.leaks[-1]) if layer.relu else (found, greatest)


def _query(members: Members, lower: Tensor, upper: Tensor, rows: Tensor | None) -> Query:
    return Query(
        layers=(*members.layers[:-1], members.layers[-1]._replace(relu=0)),
        population=members.population,
        x_L=lower,
        x_U=upper,
        C=rows,
        backend=members.backend,
        prune=False,
        bound_upper=rows is None,
        leaks=members.leaks,
    )
