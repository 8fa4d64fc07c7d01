"""The table of what every pass should cost and what was measured; bench/cost.md explains it.

    python -m bench.cost                          prints it
    python -m bench.cost --constants FILE         with the rates that python -m bench.gpu.constants has measured
    python -m bench.cost --write | --check        writes it into bench/cost.md, or fails if it is not up to date there

Measured times are those that ``python -m bench.passes`` leaves in bench/results. Needs Triton, and glsk._CUDA built for
sm_90, whose machine code is counted; no GPU.
"""

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.pop("TRITON_INTERPRET", None)  # an interpreted kernel cannot be compiled

import triton

import glsk
from bench.cost import deep, gradient, on_chip, sass
from bench.cost import triton as triton_kernels
from bench.cost.device import Cost, Device, Work
from bench.cost.windows import useful
from glsk import models
from glsk.geometry import Geometry
from glsk.precision import TRAINING_DEFAULT

DOCUMENT = Path(__file__).parents[1] / "cost.md"
RESULTS = Path(__file__).parents[1] / "results"
BEGIN, END = "<!-- written by python -m bench.cost --write -->", "<!-- end of what it writes -->"
SHAPES = {"MNIST": (1, 28, 28), "CIFAR-10": (3, 32, 32)}
PAIRS = 60_000 * 256
"""(member, sample) pairs of an epoch of MNIST with the paper's population."""
TRITON_FROM = 4_000_000
"""As in glsk/backends/cuda_select.py, which cannot be imported where glsk._CUDA is not built."""
CORE = Device("AVX-512 at 2.6 GHz", multiprocessors=1, clock_hz=2.6e9, fma_per_s=2 * 16 * 2.6e9)
"""One core of a CPU: two vectors of 16 multiply-adds a cycle."""


@dataclass(frozen=True)
class Row:
    """One pass, forwards or its gradient, by one backend."""

    net: str
    name: str
    direction: str
    backend: str
    cost: Cost
    precision: str = ""
    """In which alone the backend takes this time; empty for any."""

    def line(self, device: Device, measured: str) -> str:
        on = CORE if self.backend == "cpu" else device
        work, cost = self.cost.work, self.cost
        counts = [f"{1e-6 * value:.2f}" if value else "" for value in (work.instructions, work.shared, work.l2)]
        cells = [
            f"{self.net.upper()} {self.name}", self.direction, self.backend, f"{cost.kernel}: {cost.where}",
            f"{1e-6 * work.useful:.2f}", f"{1e-6 * work.executed:.2f}", *counts,
            f"{1e-3 * work.hbm:.1f}" if work.hbm else "",
            f"{cost.warps} x {cost.registers}" if cost.registers else "",
            f"{1e9 * cost.seconds(on):,.0f} ({cost.bound(on)})", measured,
        ]  # fmt: skip
        return f"| {' | '.join(cells)} |"


def rows(net: str, shape: tuple[int, int, int], code: sass.Compiled) -> Iterator[Row]:
    """CROWN's passes as a training step runs them: both sides of hidden layers, lower bounds of nine margins."""
    layers = glsk.BoundedModule(models.build(net, shape), shape).chain.geometry
    passes: list[tuple[str, Sequence[Geometry], int | None]] = [
        (f"layer {k}", layers[: k + 1], None) for k in range(1, len(layers) - 1)
    ]
    for name, some, spec in [*passes, ("margins", layers, 9)]:
        by_triton = triton_kernels.cost(some, spec)
        by_cuda: dict[str, Cost] = {}
        if spec is None and len(some) > 2:
            by_cuda = {kind.precision: deep.cost(some, code, kind) for kind in deep.KINDS}
        elif spec is None:
            by_cuda[""] = on_chip.patch(some, code)
        elif len(some) == 3:
            by_cuda[""] = on_chip.margins(some, spec, code)
        else:
            assert spec * _weights(some) >= TRITON_FROM, "the general kernel is not modelled"
            by_cuda[""] = by_triton
        for precision, cost in by_cuda.items():
            yield Row(net, name, "forward", "cuda", cost, precision)
        yield Row(net, name, "forward", "triton", by_triton)
        yield Row(net, name, "forward", "cpu", _on_cpu(useful(some, spec)))
        yield Row(net, name, "gradient", "cuda", gradient.cost(some, spec, code))
        yield Row(net, name, "gradient", "cpu", _on_cpu(3 * useful(some, spec)))


def _weights(layers: Sequence[Geometry]) -> int:
    return sum(layer.out_features * layer.in_channels * layer.kernel_height * layer.kernel_width for layer in layers)


def _on_cpu(macs: int) -> Cost:
    return Cost("C++", "16 samples a vector", Work(macs, macs, fma=macs), 8)


def measured() -> dict[tuple[str, str, str, str], tuple[str, str]]:
    """(net, pass, direction, backend) -> nanoseconds by the newest results of bench.passes, and where."""
    paths = *RESULTS.glob("passes*.json"), *RESULTS.glob("gpu*/**/passes.json")
    contents = [json.loads(path.read_text()) for path in paths]
    found = {}
    for content in sorted(contents, key=lambda content: content["machine"]["time"]):
        for row in content["passes"]:
            key = row["net"], row["pass"], row["direction"], row["backend"]
            machine = content["machine"]
            on = machine["device"] if machine["device"] != "cpu" else f"{machine['cpu']}, {machine['threads']} thread"
            found[key] = f"{row['ns']:,.0f}", f"`{row['backend']}` on {on} ({machine['time'][:10]})"
    return found


def table(device: Device, code: sass.Compiled, data: str = "MNIST") -> Iterator[str]:
    yield f"{data}; rates of the GPU: {device.source}; of the CPU, one core: {CORE.source}. {compilers()}"
    yield ""
    yield (
        "| pass | | backend | kernel | useful MMAC | executed MMAC | Minstr. | shared, MB | L2, MB | HBM, kB "
        "| warps x registers | predicted ns (bound by) | measured ns |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|---|---|---|"
    times, totals, sources = measured(), dict[str, float](), set[str]()
    for net in ("cnn3", "cnn5"):
        made = list(rows(net, SHAPES[data], code))
        for row in made:
            key = net, row.name, row.direction, row.backend
            ours = data == "MNIST" and row.precision in ("", TRAINING_DEFAULT)  # what bench.passes measures
            ns, where = times.get(key, ("not yet", "")) if ours else ("", "")
            sources |= {where} - {""}
            yield row.line(device, ns)
        for backend in ("cuda", "triton"):
            forward = [row for row in made if row.direction == "forward" and row.backend == backend]
            for precision in dict.fromkeys(row.precision for row in forward if row.precision) or ("",):
                by = f"{net.upper()} by `{backend}`" + (f" in `{precision}`" if precision else "")
                some = [row.cost.seconds(device) for row in forward if row.precision in ("", precision)]
                totals[by] = sum(some) * PAIRS
    yield ""
    each = ", ".join(f"{by} {seconds:.3g} s" for by, seconds in totals.items())
    yield f"An epoch of 60,000 samples with 256 members, the passes alone, predicted: {each}."
    if sources:
        yield ""
        yield f"Measured: {', '.join(sorted(sources))}."


def compilers() -> str:
    """What made the code that is counted: another version may make other code."""
    return f"Code for sm_90 by nvcc {sass.nvcc_version()} and Triton {triton.__version__}."


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.cost", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--constants", type=Path, help="JSON of bench.gpu.constants; default: the data sheet's")
    parser.add_argument("--code", type=Path, help="compiled kernels (an extension or a library); default: glsk._CUDA")
    parser.add_argument("--data", choices=SHAPES, default="MNIST")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--write", action="store_true")
    what.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    path = options.code or sass.extension()
    if (reason := sass.why_unreadable(path)) is not None:
        raise SystemExit(f"the table cannot be made here: {reason}")
    text = DOCUMENT.read_text()
    if options.check and compilers() not in text:
        raise SystemExit("the table cannot be compared here: other compilers made it")
    device = Device.measured(options.constants) if options.constants else Device()
    lines = list(table(device, sass.Compiled(path), options.data))
    if not (options.write or options.check):
        print("\n".join(lines))
        return
    head, rest = text.split(BEGIN)
    made = head + "\n".join([BEGIN, "", *lines, "", END]) + rest.split(END)[1]
    if options.check and made != text:
        raise SystemExit(f"{DOCUMENT.name} is not up to date: run python -m bench.cost --write")
    if options.write:
        temporary = DOCUMENT.with_suffix(".tmp")
        temporary.write_text(made)
        temporary.replace(DOCUMENT)


if __name__ == "__main__":
    main()
