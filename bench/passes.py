"""Time of every pass of CROWN and of its gradient, nothing pruned: the column "measured" of bench/cost.md.

    python -m bench.passes --device cuda --out bench/results/passes-gpu.json
    python -m bench.passes --device cpu --out bench/results/passes-cpu.json     with one thread

Hidden layers have both sides and margins their lower bounds, as a training step has them; in the gradient every row
has one.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import glsk
from bench import environment
from bench.workloads import workload
from glsk import backends, ops
from glsk.geometry import encode
from glsk.precision import TRAINING_DEFAULT, using_precision

SIZES = {"cuda": {"cnn3": (256, 512), "cnn5": (32, 64)}, "cpu": {"cnn3": (16, 64), "cnn5": (4, 16)}}
"""Members and samples, by device and network."""
BACKENDS = {"cuda": ["cuda", "triton"], "cpu": ["cpu"]}


@dataclass(frozen=True)
class Pass:
    """One pass as an op's operands, and those among them that a training step differentiates for."""

    name: str
    operands: tuple[Any, ...]
    wanted: tuple[Tensor, ...]


def passes(net: str, members: int, samples: int, device: str, backend: str) -> Iterator[Pass]:
    """The passes of a network around which a population lies, with the bounds that CROWN gives its hidden layers."""
    work = workload(net, members, samples).to(device)
    bounded = glsk.BoundedModule(work.net, tuple(work.x_L.shape[1:]))
    inner = bounded.intermediate_bounds(
        x_L=work.x_L, x_U=work.x_U, params=work.params, backend=backend, memory_limit=8 << 30, check_finite=False
    )
    population = glsk.population.assemble(bounded.chain, work.params)
    layers = bounded.chain.geometry
    leaf = lambda tensors: [t.detach().requires_grad_() for t in tensors]  # noqa: E731
    weights, biases = leaf(population.weights), leaf(population.biases)
    lowers, uppers = (leaf(bounds[end] for bounds in inner.values()) for end in (0, 1))
    box = work.x_L.flatten(1)[None], work.x_U.flatten(1)[None]
    for k in range(1, len(layers)):
        n, spec = k + 1, k == len(layers) - 1
        given = weights[:n], biases[:n], lowers[:k], uppers[:k]
        rest = [box[0].new_empty(0)] * k, work.C if spec else None, None, None, encode(layers[:n]), [0.0] * n
        operands = (*box, *given, *rest, "adaptive", not spec)
        yield Pass("margins" if spec else f"layer {k}", operands, tuple(t for some in given for t in some))


def elapsed(call: Callable[[], object], device: str) -> float:
    """Seconds of a call: on a GPU of what it queues, by CUDA events, the launches before it left out."""
    if not device.startswith("cuda"):
        started = time.perf_counter()
        call()
        return time.perf_counter() - started
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    begin.record()
    call()
    end.record()
    end.synchronize()
    return 1e-3 * float(begin.elapsed_time(end))


@torch.no_grad()
def _forward(each: Pass, backend: str) -> object:
    return ops.crown_pass(*each.operands, backend=backend)


def measure(net: str, members: int, samples: int, device: str, backend: str, repeats: int = 5) -> Iterator[dict]:
    """Nanoseconds a (member, sample) of each pass and gradient: the median of some calls, after one that compiles."""
    for each in passes(net, members, samples, device, backend):
        calls: dict[str, Callable[[], object]] = {"forward": partial(_forward, each, backend)}
        if ops.crown_pass.has_backward(backend):  # else it is the reference's
            outputs = [t for t in ops.crown_pass(*each.operands, backend=backend) if t.numel()]
            grads = [torch.ones_like(t) for t in outputs]
            calls["gradient"] = partial(torch.autograd.grad, outputs, each.wanted, grads, retain_graph=True)
        for direction, call in calls.items():
            with using_precision(TRAINING_DEFAULT):
                call()
                seconds = [elapsed(call, device) for _ in range(repeats)]
            yield {
                "net": net, "pass": each.name, "direction": direction, "backend": backend, "members": members,
                "samples": samples, "ns": 1e9 * statistics.median(seconds) / (members * samples),
            }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.passes", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, ... or cpu")
    parser.add_argument("--backends", nargs="+", help="default: all of the device's")
    parser.add_argument("--nets", nargs="+", choices=("cnn3", "cnn5"), default=["cnn3", "cnn5"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args(arguments)
    kind = options.device.partition(":")[0]
    if kind == "cpu":
        torch.set_num_threads(1)  # what is predicted is one core
    found = [name for name in options.backends or BACKENDS[kind] if backends.why_missing(name) is None]
    rows = []
    for net in options.nets:
        for backend in found:
            for row in measure(net, *SIZES[kind][net], options.device, backend, options.repeats):
                rows.append(row)
                print(f"{net} {row['pass']} {row['direction']} by {backend}: {row['ns']:,.1f} ns", flush=True)
    if not rows:
        raise SystemExit("there is no backend to measure")
    if options.out:
        content = {"machine": environment.describe(options.device), "passes": rows}
        options.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
