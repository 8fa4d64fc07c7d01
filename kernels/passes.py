"""Launching the engine of :mod:`glsk.kernels.back_substitution`, for every kind of lines."""

import sys

import torch
import triton
from glsk.kernels import config, launch
from glsk.kernels.back_substitution import back_substitution_kernel
from glsk.kernels.pack import pack
from glsk.kernels.plan import make_plan
from glsk.kernels.relu_relaxation import channel_last_lines, channel_last_slopes
from glsk.kernels.rows import unstable_rows
from glsk.kernels.shape import Plan
from torch import Tensor

from glsk import workspace
from glsk.geometry import Geometry


def launch_pass(
    x_L: Tensor,
    x_U: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    lowers: list[Tensor],
    uppers: list[Tensor],
    C: Tensor | None,
    known: tuple[Tensor, Tensor] | None,
    layers: list[Geometry],
    sides: int,
    mask: bool,
    lines: "list[Tensor | None] | None" = None,
) -> tuple[Tensor, Tensor | None]:
    """Lower bounds of all rows and, with ``sides`` 2, upper ones. No host synchronisation.

    Lines, each with one row for all, are those given, or made of bounds: CROWN's, or with ``mask`` HBox's.
    """
    members, samples = weights[0].shape[0], x_L.shape[1]
    rows = layers[-1].out_features if C is None else C.shape[1]
    lower = x_L.new_empty(members, samples, rows)
    upper = torch.empty_like(lower) if sides == 2 else None
    pairs = members * samples
    if not lower.numel():
        return lower, upper
    count = 2 if lines is None else 4
    plan = make_plan(tuple(layers), C is not None, sides * rows, config.target(config.capability(x_L.device)), count)
    with launch.on(x_L):
        x_L, x_U = (t if t.stride(2) == 1 else t.contiguous() for t in (x_L, x_U))
        if x_L.stride() != x_U.stride():
            x_L, x_U = x_L.contiguous(), x_U.contiguous()
        units, counts = unstable_rows(*known, lower, upper) if known else (lower, lower)
        packed = pack(plan, weights, biases, launch.precision())
        slopes = lower
        if plan.slopes and lines is not None:
            slopes = channel_last_lines(plan, layers, lines, members, samples)
        elif plan.slopes:
            slopes = channel_last_slopes(plan, layers, lowers, uppers, pairs, mask)
        row_blocks = triton.cdiv(sides * rows, plan.rows)
        programs = min(config.programs(x_L.device), pairs * row_blocks, _granted(plan))
        scratch = lower.new_empty(programs * plan.scratch)
        back_substitution_kernel[(programs,)](
            packed, lower if C is None else C.contiguous(), slopes,
            x_L, x_U, launch.member_stride(x_L), x_L.stride(1),
            units, counts, lower, lower if upper is None else upper, scratch,
            pairs, samples, rows, row_blocks,
            PLAN=plan, SIDES=sides, LISTED=known is not None, LINES=count,
            PRECISION=launch.precision(),
            num_warps=plan.warps,
        )  # fmt: skip
    return lower, upper


def _granted(plan: Plan) -> int:
    """How many programs there is scratch for."""
    limit = workspace.granted()
    return sys.maxsize if limit is None else max(1, limit // max(1, 4 * plan.scratch))


def pass_workspace(
    layers: tuple[Geometry, ...], spec_rows: int | None, device: torch.device, dtype: torch.dtype
) -> workspace.Workspace:
    """What :func:`launch_pass` allocates for a two-sided pass; ``spec_rows``: rows of C, None for the last layer's."""
    rows = layers[-1].out_features if spec_rows is None else spec_rows
    aim = config.target(config.capability(device))
    plans = [make_plan(layers, spec_rows is not None, 2 * rows, aim, lines) for lines in (2, 4)]
    plan = max(plans, key=lambda plan: plan.packed)  # they differ in nothing else that counts
    inputs = layers[0].in_features
    return workspace.Workspace(
        per_member=4 * plan.packed,
        # slopes and intercepts, the rows to compute and how many, a contiguous copy of C or of the box
        per_pair=4 * (4 * plan.slopes + rows + 1 + max(rows * layers[-1].out_features if spec_rows else 0, 2 * inputs)),
        program=4 * plan.scratch,
        programs=config.programs(device),
        programs_per_pair=triton.cdiv(2 * rows, plan.rows),
    )
