"""Exact verification of tiny ReLU networks by a mixed-integer program (Tjeng et al., 2019), for tests."""

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from torch import nn

from glsk.verify.property import Property

FEASIBLE = 1e-7
"""HiGHS keeps constraints to this; a test leaves out what is nearer to the border than a thousand times it."""


def depth(net: nn.Sequential, found: Property) -> float:
    """How deep some input reaches into an unsafe set, the most over all: the property is violated iff >= 0.

    ``net`` is Linear and ReLU in turn, ending in Linear; the boxes are [n].
    """
    return max(_deepest(net, box, pair) for box in found.boxes for pair in found.unsafe)


def _deepest(net: nn.Sequential, box, pair) -> float:
    layers = [
        (m.weight.detach().double().numpy(), m.bias.detach().double().numpy()) for m in net if hasattr(m, "weight")
    ]
    sizes = [box.lower.numel()]
    # Variables: the input, then of every hidden layer its outputs and the binaries that switch them, last the depth t.
    lower, upper = list(box.lower.tolist()), list(box.upper.tolist())
    integral = [0] * sizes[0]
    rows, low, high = [], [], []
    total = sizes[0] + sum(2 * len(b) for _, b in layers[:-1]) + 1
    at, previous = sizes[0], slice(0, sizes[0])
    ends = np.array(lower), np.array(upper)
    for weight, bias in layers[:-1]:
        center, radius = weight @ (ends[0] + ends[1]) / 2 + bias, np.abs(weight) @ (ends[1] - ends[0]) / 2
        least, most = center - radius, center + radius
        count = len(bias)
        for i in range(count):
            l, u = min(least[i], 0.0), max(most[i], 0.0)  # noqa: E741
            row = np.zeros((3, total))
            row[:, at + i] = 1
            row[0, previous] = row[1, previous] = -weight[i]
            row[1, at + count + i] = -l  # out <= z - l (1 - a)
            row[2, at + count + i] = -u  # out <= u a
            rows += list(row)
            low += [bias[i], -np.inf, -np.inf]
            high += [np.inf, bias[i] - l, 0.0]
        lower += [0.0] * (2 * count)
        upper += [max(m, 0.0) for m in most] + [1.0] * count
        integral += [0] * count + [1] * count
        previous, at = slice(at, at + count), at + 2 * count
        ends = np.maximum(least, 0), np.maximum(most, 0)
    A, b = pair.A.numpy(), pair.b.numpy()
    for row_A, end in zip(A, b, strict=True):
        row = np.zeros(total)
        row[previous] = row_A @ layers[-1][0]
        row[-1] = 1  # A y + t <= b
        rows.append(row)
        low.append(-np.inf)
        high.append(end - row_A @ layers[-1][1])
    objective = np.zeros(total)
    objective[-1] = -1
    solved = milp(
        objective,
        constraints=LinearConstraint(np.array(rows), low, high),
        bounds=Bounds([*lower, -np.inf], [*upper, np.inf]),
        integrality=[*integral, 0],
    )
    assert solved.status == 0, solved.message
    return -solved.fun
