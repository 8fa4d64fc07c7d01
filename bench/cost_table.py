"""The table of bench/README.md: what each pass of ``backend="auto"`` should cost on an H100, and what was measured.

    python -m bench.cost_table            writes the table between its marks in bench/README.md
    python -m bench.cost_table --check    fails if it is not up to date

Measured times come from the JSON files that ``python -m bench.passes`` leaves in bench/results/gpu*.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import triton

import glsk
from bench import cost_backward, cost_cuda, cost_model, cost_onchip
from bench.cost_model import aot, config
from glsk import models, precision
from glsk.geometry import Geometry

README = Path(__file__).with_name("README.md")
RESULTS = Path(__file__).with_name("results")
BEGIN, END = "<!-- written by python -m bench.cost_table -->", "<!-- end of what it writes -->"

PRECISION = precision.TRAINING_DEFAULT

TRITON_FROM = 4_000_000
"""As in glsk/backends/cuda_select.py, which cannot be imported where glsk._CUDA is not built."""


@dataclass(frozen=True)
class Row:
    """One pass, for one (member, sample)."""

    net: str
    name: str
    kernel: str
    tile: str
    flops: float
    executed: float
    hbm: float
    l2: float
    occupancy: float
    seconds: float
    bound: str

    def line(self) -> str:
        l2 = f"{self.l2 / 1e6:.2f}" if self.l2 else "on chip"
        return (
            f"| {self.net.upper()}, {self.name} | {self.kernel} | {self.tile} | {self.flops / 1e6:.2f} "
            f"| {self.executed / 1e6:.2f} | {self.hbm / 1e3:.1f} | {l2} | {self.occupancy:.0%} "
            f"| {1e9 * self.seconds:,.0f} ({self.bound}) | {measured(self.net, self.name)} |"
        )


def rows(net: str) -> list[Row]:
    """CROWN's passes as a training step runs them, by the kernel that ``auto`` takes on a GPU."""
    layers = glsk.BoundedModule(models.build(net, cost_model.SHAPE), cost_model.SHAPE).chain.geometry
    found = []
    for k, plan in enumerate(aot.crown_plans(layers, 9, 90), start=1):
        own = not plan.start.from_C
        if k == 1 and own:
            found.append(_on_chip(net, "layer 1", cost_onchip.patch(layers[:2])))
        elif not own and len(layers) == 3:
            found.append(_on_chip(net, "margins", cost_onchip.margins(layers, 9)))
        elif own and k > 1:
            found.append(_deep(net, cost_cuda.cost(f"layer {k}", layers[: k + 1], cost_cuda.compiled())))
        else:
            one_sided = layers[k].out_features if own else 9
            assert one_sided * _taps(layers[:k] if own else layers) >= TRITON_FROM, "the general kernel is not modelled"
            binary = aot.compile_pass(plan, 1 + own, own, 2, PRECISION, 90)
            name = f"layer {k}" if own else "margins"
            found.append(_on_tensor_cores(net, cost_model.cost(name, plan, (1 + own) * one_sided, binary)))
    return found


def _taps(layers: Sequence[Geometry]) -> int:
    return sum(layer.out_features * layer.in_channels * layer.kernel_height * layer.kernel_width for layer in layers)


def _on_chip(net: str, name: str, cost: cost_onchip.OnChip) -> Row:
    compute = 2 * cost.executed / (cost_onchip.FP32 * cost_onchip.EFFICIENCY)
    memory = cost.hbm / cost_model.HBM
    return Row(
        net, name, cost.kernel, cost.tile, 2 * cost.useful, 2 * cost.executed, cost.hbm, 0.0, cost.occupancy,
        max(compute, memory), "FP32" if compute >= memory else "HBM",
    )  # fmt: skip


def _on_tensor_cores(net: str, cost: cost_model.Cost) -> Row:
    tiles = ", ".join(f"{s.positions * cost.plan.rows}x{s.block_n}x{s.block_k}" for s in cost.plan.stages)
    resident = min(cost.binary.programs, config.HOPPER.programs) * cost.plan.warps
    return Row(
        net, cost.name, "Triton", tiles, 2 * cost.useful, 2 * cost.executed, cost.hbm, cost.l2, resident / 64,
        cost.seconds(PRECISION), cost.bound(PRECISION),
    )  # fmt: skip


def _deep(net: str, cost: cost_cuda.Cost) -> Row:
    executed = 2 * cost.work.products * cost_cuda.PRODUCT / 3
    where = "shared memory" if not cost.layout.spilled else "shared memory, its top level in L2"
    return Row(
        net, cost.name, "CUDA deep", f"{cost_cuda.ROWS} rows a warp, in {where}", 2 * cost.useful, executed, cost.hbm,
        cost.work.l2, cost.layout.warps / 64, cost.seconds, max(cost.times, key=lambda name: cost.times[name]),
    )  # fmt: skip


def measured(net: str, name: str) -> str:
    """What the newest result of bench.passes says, else "not yet"."""
    found = []
    for path in [*RESULTS.glob("gpu*.json"), *RESULTS.glob("gpu*/*.json")]:
        content = json.loads(path.read_text())
        of_passes = content.get("passes", []) if isinstance(content, dict) else []
        found += [
            (content["machine"]["time"], f"{row['ns']:,.0f} ({content['machine']['device']})")
            for row in of_passes
            if (row["net"], row["pass"]) == (net, name)
        ]
    return max(found)[1] if found else "not yet"


def table() -> Iterator[str]:
    yield (
        "| pass | kernel | tile | useful MFLOP | executed MFLOP | HBM, kB | L2, MB | occupancy "
        "| predicted ns (bound by) | measured ns |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|"
    totals = {}
    for net in ("cnn3", "cnn5"):
        found = rows(net)
        yield from (row.line() for row in found)
        totals[net] = sum(row.seconds for row in found) * cost_model.SAMPLES * cost_model.MEMBERS
    yield ""
    epochs = " and ".join(f"{seconds:.3g} s for {net.upper()}" for net, seconds in totals.items())
    yield f"An epoch of MNIST with {cost_model.MEMBERS} members, from these: {epochs}, predicted."
    yield ""
    yield from gradients()
    yield ""
    yield compilers()


def gradients() -> Iterator[str]:
    """The table of the fused gradients: of every hidden layer's rows, both sides, and of the margins' lower bounds."""
    yield (
        "| gradient of | lanes | coefficients in | useful MFLOP | executed MFLOP | HBM, kB | L2, MB "
        "| predicted ns (bound by) | measured ns |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for net in ("cnn3", "cnn5"):
        layers = glsk.BoundedModule(models.build(net, cost_model.SHAPE), cost_model.SHAPE).chain.geometry
        passes = [(f"layer {k}", layers[: k + 1], None) for k in range(1, len(layers) - 1)]
        for name, some, rows in [*passes, ("margins", layers, 9)]:
            cost = cost_backward.cost(some, rows)
            bound = max(cost.times, key=lambda resource: cost.times[resource])
            where = f"shared memory, {cost.where.shared >> 10} KiB" if cost.where.on_chip else "L2"
            work = f"{2e-6 * cost.useful:.2f} | {2e-6 * cost.executed:.2f}"
            yield (
                f"| {net.upper()}, {name} | {cost.lanes} | {where} | {work} "
                f"| {cost.hbm / 1e3:.1f} | {cost.l2 / 1e6:.2f} | {1e9 * cost.seconds:,.0f} ({bound}) | not yet |"
            )
    yield ""
    yield (
        "Every row with a gradient; rows without one cost nothing. Predicted from shapes alone, by "
        f"`bench/cost_backward.py`, with {cost_backward.SHARE[2]:.0%} of the peak assumed."
    )


def compilers() -> str:
    """What made the code that is counted: another version may make other code."""
    return f"Code for sm_90 by nvcc {cost_onchip.nvcc_version()} and Triton {triton.__version__}."


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.cost_table", description=__doc__)
    parser.add_argument("--check", action="store_true", help="only compare with the file")
    options = parser.parse_args(arguments)
    if (reason := cost_onchip.missing()) is not None:
        raise SystemExit(f"the table cannot be made here: {reason}")
    text = README.read_text()
    if options.check and compilers() not in text:
        raise SystemExit("the table cannot be compared here: other compilers made it")
    head, rest = text.split(BEGIN)
    tail = rest.split(END)[1]
    made = head + "\n".join([BEGIN, "", *table(), "", END]) + tail
    if options.check and made != text:
        raise SystemExit(f"{README.name} is not up to date: run python -m bench.cost_table")
    if not options.check:
        README.write_text(made)


if __name__ == "__main__":
    main()
