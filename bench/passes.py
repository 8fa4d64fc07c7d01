"""Time of every pass of CROWN on a GPU, nothing pruned: the last column of the table in bench/README.md.

python -m bench.passes --device cuda --out bench/results/gpu-passes.json
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import glsk
from bench import environment
from bench.workloads import workload
from glsk import backends, ops
from glsk.precision import TRAINING_DEFAULT, using_precision

SIZES = {"cnn3": (256, 512), "cnn5": (32, 64)}


@contextmanager
def _timed(backend: str, seconds: dict[str, float], device: str) -> Iterator[None]:
    """Adds up the time of each pass; the device has nothing else to do meanwhile."""
    known = ops.crown_pass._implementations
    run: Callable[..., Any] = known.get(backend, ops.crown_pass.reference)

    def call(*operands: Any) -> Any:
        weights, C = operands[2], operands[7]
        name = f"layer {len(weights) - 1}" if C is None else "margins"
        results: list[Any] = []
        seconds[name] = seconds.get(name, 0.0) + elapsed(lambda: results.append(run(*operands)), device)
        return results[0]

    known[backend] = call
    try:
        yield
    finally:
        known[backend] = run


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


def measure(
    net: str, members: int, samples: int, device: str, backend: str = "auto", repeats: int = 5
) -> list[dict[str, object]]:
    """Nanoseconds a (member, sample) of each pass: the median of some calls, after one that compiles."""
    work = workload(net, members, samples).to(device)
    bounded = glsk.BoundedModule(work.net, tuple(work.x_L.shape[1:]))
    chosen = backends.resolve(backend, torch.device(device), torch.float32)
    calls: list[dict[str, float]] = []
    for _ in range(repeats + 1):
        seconds: dict[str, float] = {}
        with _timed(chosen, seconds, device), using_precision(TRAINING_DEFAULT):
            bounded.compute_bounds(
                x_L=work.x_L, x_U=work.x_U, C=work.C, params=work.params, backend=chosen, prune=False,
                bound_upper=False, memory_limit=8 << 30, check_finite=False,
            )  # fmt: skip
        calls.append(seconds)
    return [
        {
            "net": net,
            "pass": name,
            "backend": chosen,
            "members": members,
            "samples": samples,
            "ns": 1e9 * statistics.median(call[name] for call in calls[1:]) / work.pairs,
        }
        for name in calls[0]
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.passes", description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args(arguments)
    rows = []
    for net, (members, samples) in SIZES.items():
        for row in measure(net, members, samples, options.device, options.backend, options.repeats):
            rows.append(row)
            print(f"{net}, {row['pass']}: {row['ns']:,.1f} ns by {row['backend']}", flush=True)
    if options.out:
        content = {"machine": environment.describe(options.device), "passes": rows}
        options.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
