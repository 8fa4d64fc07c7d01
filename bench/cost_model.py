"""What the Triton kernels should cost on an H100: a roofline over their compiled code. Not yet measured on a GPU.

For CNN3 and CNN5 on MNIST, as training calls CROWN: each pass's multiply-adds, bytes from L2 and device memory, tile,
registers, shared memory, programs a multiprocessor, and the time of an epoch with a population of 256.

    python bench/cost_model.py            prints the tables and writes them to bench/cost_model.md
    python bench/cost_model.py --check    fails if that file is not up to date
"""

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ.pop("TRITON_INTERPRET", None)  # an interpreted kernel cannot be compiled

import triton
from glsk.kernels import aot, config
from glsk.kernels.shape import Plan, Stage

import glsk
from glsk import models

SHAPE = (1, 28, 28)
SAMPLES, MEMBERS, BATCH = 60_000, 256, 512
COMPILER = f"Compiled by Triton {triton.__version__}; another version may make other code."
TABLES = Path(__file__).with_name("cost_model.md")

# NVIDIA H100 SXM. L2 bandwidth is what others have measured; the rest is the data sheet.
TENSOR = {"tf32x3": 494e12 / 3, "bf16x3": 989e12 / 3, "tf32": 494e12, "ieee": 60e12}
"""float32 products a second, twice: a three-product split takes a third."""
HBM, L2, L2_BYTES, MULTIPROCESSORS = 3.35e12, 5.5e12, 50e6, 132

EFFICIENCY = 0.4
"""Assumed share of the tensor cores' peak: products are small and share a multiprocessor with their own epilogues."""
LAUNCH = 5e-6
"""Assumed seconds between two small kernels."""


@dataclass(frozen=True)
class Cost:
    """Of one pass, for one (member, sample), nothing pruned."""

    name: str
    plan: Plan
    rows: int
    binary: aot.Binary
    useful: float
    """Multiply-adds that the mathematics asks for, padding counted in."""
    executed: float
    l2: float
    hbm: float

    def seconds(self, precision: str) -> float:
        """The longest of products, L2 and device memory, which overlap."""
        return max(2 * self.executed / (TENSOR[precision] * EFFICIENCY), self.l2 / L2, self.hbm / HBM)

    def bound(self, precision: str) -> str:
        times = {
            "tensor cores": 2 * self.executed / (TENSOR[precision] * EFFICIENCY),
            "L2": self.l2 / L2,
            "HBM": self.hbm / HBM,
        }
        return max(times, key=lambda name: times[name])


def cost(name: str, plan: Plan, rows: int, binary: aot.Binary) -> Cost:
    """Count one pass."""
    useful = executed = l2 = 0.0
    written = plan.start.units
    for stage in plan.stages:
        padded_n, padded_k = stage.n_tiles * stage.block_n, stage.k_tiles * stage.block_k
        useful += stage.y.q_window * stage.x.q_window * stage.y.kernel * stage.x.kernel * _channels(stage)
        executed += stage.blocks * padded_n * padded_k
        loads = stage.blocks * stage.n_tiles * padded_k
        # Weights, high and low: once a task where the depth is whole, else once a tile; per row of the task.
        weights = 2 * stage.packed * (1 if stage.k_tiles == 1 else stage.tiles) / plan.rows
        # Slopes and intercepts, or the box, of every unit below: once for all rows that share a window.
        whole = stage.y.i_whole and stage.x.i_whole
        epilogue = 2 * stage.blocks * padded_n / (plan.rows if whole else 1)
        last = stage is plan.stages[-1]
        written += 0 if last else stage.target_units
        l2 += 4 * (loads + weights + epilogue)
    l2 += 4 * written
    held = 4 * plan.scratch * config.HOPPER.programs * MULTIPROCESSORS
    missing = max(0.0, 1 - 0.8 * L2_BYTES / held) if held else 0.0
    hbm = rows * 2 * 4 * written * missing + 4 * (2 * plan.slopes + 2 * rows)
    return Cost(name, plan, rows, binary, rows * useful, rows * executed, rows * l2, hbm)


def _channels(stage: Stage) -> int:
    return stage.in_channels * stage.out_channels


def costs(net: str) -> list[Cost]:
    """Every pass of CROWN with margins as the specification, as a training step runs it."""
    layers = glsk.BoundedModule(models.build(net, SHAPE), SHAPE).chain.geometry
    found = []
    for k, plan in enumerate(aot.crown_plans(layers, 9, 90), start=1):
        own = not plan.start.from_C
        rows = 2 * layers[k].out_features if own else 9
        binary = aot.compile_pass(plan, 1 + own, own, 2, "tf32x3", 90)
        found.append(cost(f"layer {k}" if own else "margins", plan, rows, binary))
    return found


def report() -> Iterator[str]:
    """The lines of ``cost_model.md``."""
    yield "# Predicted cost of the Triton kernels on an H100"
    yield ""
    yield "**Not yet measured on a GPU.** Written by `bench/cost_model.py` from the plans and the code for sm_90."
    yield COMPILER
    yield (
        f"Assumed: {EFFICIENCY:.0%} of the tensor cores' peak (494 TFLOP/s TF32, 989 BF16, a third of it for "
        f"three-product splits), {L2 / 1e12} TB/s L2, {HBM / 1e12} TB/s HBM; products, L2 and HBM overlap; nothing is "
        "pruned."
    )
    yield "Numbers are for one (member, sample). *Useful* multiply-adds leave out padding of tiles and of blocks."
    for net in ("cnn3", "cnn5"):
        passes = costs(net)
        yield ""
        yield f"## {net.upper()}, MNIST"
        yield ""
        yield "| pass | rows | useful MMAC | executed MMAC | L2, MB | HBM, MB | bound by | ns, tf32x3 | ns, bf16x3 |"
        yield "|---|---|---|---|---|---|---|---|---|"
        for c in passes:
            yield (
                f"| {c.name} | {c.rows} | {c.useful / 1e6:.2f} | {c.executed / 1e6:.2f} | {c.l2 / 1e6:.2f} "
                f"| {c.hbm / 1e6:.3f} | {c.bound('tf32x3')} "
                f"| {1e9 * c.seconds('tf32x3'):.1f} | {1e9 * c.seconds('bf16x3'):.1f} |"
            )
        yield ""
        yield "| pass | rows a program | scratch, KiB | tiles M x N x K by layer | registers | shared, KiB | fit |"
        yield "|---|---|---|---|---|---|---|"
        for c in passes:
            tiles = ", ".join(f"{s.positions * c.plan.rows}x{s.block_n}x{s.block_k}" for s in c.plan.stages)
            yield (
                f"| {c.name} | {c.plan.rows} | {c.plan.scratch / 256:.0f} | {tiles} | {c.binary.registers} "
                f"| {c.binary.shared / 1024:.0f} | {c.binary.programs} |"
            )
        yield ""
        launches = sum(2 * len(c.plan.stages) + 4 for c in passes) * -(-SAMPLES // BATCH)
        for precision in ("tf32x3", "bf16x3"):
            total = sum(c.seconds(precision) for c in passes) * SAMPLES * MEMBERS + launches * LAUNCH
            yield f"One epoch, {MEMBERS} members, batches of {BATCH}, {precision}: **{total:.3g} s** predicted."
            yield ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only compare with the file")
    arguments = parser.parse_args()
    if arguments.check and TABLES.exists() and COMPILER not in TABLES.read_text():
        raise SystemExit(f"{TABLES.name} cannot be compared here: another version of Triton made it")
    text = "\n".join(report()).rstrip() + "\n"
    if arguments.check:
        if not TABLES.exists() or TABLES.read_text() != text:
            raise SystemExit(f"{TABLES.name} is not up to date: run python bench/cost_model.py")
        return
    print(text, end="")
    temporary = TABLES.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.replace(TABLES)


if __name__ == "__main__":
    main()
