"""The Triton kernels' passes, counted from their plans (``glsk.kernels.plan``) and their code for sm_90.

Needs Triton, not interpreted: TRITON_INTERPRET must not be set when this is imported.
"""

from collections.abc import Sequence

from glsk.kernels import aot, config
from glsk.kernels.plan import make_plan
from glsk.kernels.shape import Plan

from bench.cost.device import Cost, Device, Work
from bench.cost.windows import useful
from glsk.geometry import Geometry
from glsk.precision import TRAINING_DEFAULT

CAPABILITY = 90
L2_BYTES = 50e6
PRODUCT = 16 * 8 * 16
"""Multiply-adds of one tensor-core product; three make a product of float32 numbers."""


def cost(layers: Sequence[Geometry], rows: int | None) -> Cost:
    """Both sides of the last layer's outputs, or the lower bounds of ``rows`` rows of C."""
    own, count = rows is None, 2 * layers[-1].out_features if rows is None else rows
    plan = make_plan(tuple(layers), not own, count, config.target(CAPABILITY))
    binary = aot.compile_pass(plan, 1 + own, own, 2, TRAINING_DEFAULT, CAPABILITY)
    executed, l2, hbm = count_plan(plan, count)
    work = Work(useful(layers, rows), executed, wgmma=3 * executed / PRODUCT, l2=l2, hbm=hbm)
    tiles = ", ".join(f"{s.positions * plan.rows} x {s.block_n} x {s.block_k}" for s in plan.stages)
    warps = min(binary.programs, config.HOPPER.programs) * plan.warps
    return Cost("Triton", f"tiles {tiles}; scratch in L2", work, warps, binary.registers)


def count_plan(plan: Plan, rows: int) -> tuple[float, float, float]:
    """Multiply-adds with padding, bytes of L2 and of device memory."""
    executed = l2 = 0.0
    written = plan.start.units
    for stage in plan.stages:
        padded_n, padded_k = stage.n_tiles * stage.block_n, stage.k_tiles * stage.block_k
        executed += stage.blocks * padded_n * padded_k
        loads = stage.blocks * stage.n_tiles * padded_k
        # Weights, high and low: once a task where the depth is whole, else once a tile; per row of the task.
        weights = 2 * stage.packed * (1 if stage.k_tiles == 1 else stage.tiles) / plan.rows
        # Slopes and intercepts, or the box, of every unit below: once for all rows that share a window.
        shared = stage.y.i_whole and stage.x.i_whole
        epilogue = 2 * stage.blocks * padded_n / (plan.rows if shared else 1)
        written += 0 if stage is plan.stages[-1] else stage.target_units
        l2 += 4 * (loads + weights + epilogue)
    l2 += 4 * written
    held = 4 * plan.scratch * config.HOPPER.programs * Device().multiprocessors
    missing = max(0.0, 1 - 0.8 * L2_BYTES / held) if held else 0.0
    hbm = rows * 2 * 4 * written * missing + 4 * (2 * plan.slopes + 2 * rows)
    return rows * executed, rows * l2, hbm
