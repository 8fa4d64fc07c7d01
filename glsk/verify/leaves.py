"""A subproblem of no free unit: the network is affine on it, and a linear program says which way it goes.

The program's own verdict is not believed: its multipliers are those of a bound, which float64 with rigorous slack
checks as any other, and its solution is a point to look at.
"""

import numpy as np
import torch
from torch import Tensor

from glsk.ops import affine
from glsk.verify.engine import Engine
from glsk.verify.goals import Goals


def decide_leaf(engine: Engine, goals: Goals, goal: int, splits: Tensor) -> tuple[Tensor | None, bool]:
    """A point worth looking at ([*input_shape], None if there is none), and whether the goal is proved here.

    Args:
        engine, goals: the boxes and what is to be proved.
        goal: which goal.
        splits: [W], of every unit that the box leaves unstable.
    """
    from scipy.optimize import linprog  # only here: it takes long to import

    box = int(goals.box[goal])
    which = (splits != 0).nonzero()[:, 0]
    unit = engine.columns[box, which]
    units, outputs = _affine_pieces(engine, box, unit[splits[which] > 0])
    sides = -splits[which].double()[:, None] * units[unit]  # <= 0 in the region
    A, b = goals.A[goal], goals.b[goal]
    rows = A @ outputs
    rows[:, -1] -= b
    low, high = engine.roots.x_L[box], engine.roots.x_U[box]
    ends = [*zip(low.tolist(), high.tolist(), strict=True), (None, None)]
    objective = np.zeros(len(ends))
    objective[-1] = 1
    # min t with rows <= t: negative or 0 where the unsafe set is met. If the region is empty, how far it is from not.
    moving = (
        torch.cat((-torch.ones(len(rows)), torch.zeros(len(sides)))),
        torch.cat((torch.zeros(len(rows)), -torch.ones(len(sides)))),
    )
    matrix = torch.cat((rows, sides))
    for t, part in ((moving[0], slice(None)), (moving[1], slice(len(rows), None))):
        solved = linprog(
            objective,
            A_ub=torch.cat((matrix[:, :-1], t.double()[:, None]), dim=1)[part].numpy(),
            b_ub=-matrix[part, -1].numpy(),
            bounds=ends,
            method="highs",
        )
        if solved.status == 0:
            break
    if solved.status != 0:
        return None, False
    prices = torch.from_numpy(-np.asarray(solved.ineqlin.marginals)).clamp(min=0)
    duals = torch.zeros(1, 1, len(splits), dtype=torch.float64)
    if t is moving[0]:
        weights = prices[: len(rows)] / prices[: len(rows)].sum().clamp(min=1e-300)
        duals[0, 0, which] = prices[len(rows) :] / prices[: len(rows)].sum().clamp(min=1e-300)
    else:  # empty: any multiple of the prices separates, enough of them outweigh the row
        weights = torch.full((len(rows),), 1 / len(rows), dtype=torch.float64)
        size = float(rows.abs().sum()) + 1
        duals[0, 0, which] = prices * (2 * size / max(solved.fun, 1e-300))
        if not bool(duals.isfinite().all()):
            return None, False
    # Not exactly a sum of the rows by weights >= 0, but for rounding, which is taken from what is to be proved.
    C, target = (weights @ A)[None, None], (weights @ b + (weights @ b.abs()) * len(b) * 2.0**-50)[None, None]
    proved = engine.proves(C, target, torch.tensor([box]), splits[None], duals, (weights @ A.abs())[None, None])
    point = engine.in_data_units(torch.from_numpy(np.asarray(solved.x[:-1])))
    return point, bool(proved[0])


def _affine_pieces(engine: Engine, box: int, on: Tensor) -> tuple[Tensor, Tensor]:
    """The hidden units [U, n + 1] and the outputs [K, n + 1], affine functions of the normalised input.

    Active are the units ``on`` and those that always are.
    """
    roots = engine.roots
    active = roots.lower[box] >= 0
    active[on] = True
    inputs = roots.x_L.shape[1]
    values = torch.cat((torch.eye(inputs), torch.zeros(1, inputs))).double()[None]  # one row an input, one for 1
    found, at = [], 0
    for k, layer in enumerate(roots.chain.layers):
        shape = layer.geometry
        values = affine.forward(values, roots.weights.weights[k], shape)
        values[0, -1] += affine.per_unit(roots.weights.biases[k], shape)[0]
        found.append(values[0].T)
        if shape.relu:
            passed = active[at : at + shape.out_features].double()
            values = values * (passed + (1 - passed) * layer.leak)
        at += shape.out_features
    return torch.cat(found[:-1]), found[-1]
