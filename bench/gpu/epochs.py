"""Seconds of an epoch of MNIST (60,000 samples, 256 members) that the bounds of each method take, by CUDA events.

python -m bench.gpu.epochs --out epochs.json
"""

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

import glsk
from bench import environment, workloads
from bench.gpu.first import METHODS
from bench.passes import SIZES, elapsed
from glsk import backends, precision

PAIRS = 60_000 * 256


def measure(
    net: str, members: int, samples: int, device: str, names: Sequence[str], methods: Sequence[str], repeats: int
) -> list[dict]:
    """One row for every method and backend: the median of some calls, after one that compiles."""
    work = workloads.workload(net, members, samples).to(device)
    bounded = glsk.BoundedModule(work.net, tuple(work.x_L.shape[1:]))

    def call(method: str, backend: str) -> Callable[[], object]:
        return lambda: bounded.compute_bounds(
            x_L=work.x_L, x_U=work.x_U, C=work.C, params=work.params, backend=backend, method=method,
            bound_upper=False, memory_limit=8 << 30, check_finite=False,
        )  # fmt: skip

    rows = []
    for method in methods:
        for backend in names:
            with torch.no_grad(), precision.using_precision(precision.TRAINING_DEFAULT):
                call(method, backend)()
                seconds = [elapsed(call(method, backend), device) for _ in range(repeats)]
            a_pair = statistics.median(seconds) / (members * samples)
            rows.append(
                {
                    "net": net, "method": method, "backend": backend, "members": members, "samples": samples,
                    "us_per_pair": 1e6 * a_pair, "epoch_s": a_pair * PAIRS, "seconds": seconds,
                }
            )  # fmt: skip
            print(
                f"{net} {method:9} {backend:6} {1e6 * a_pair:9.4f} us a pair, {a_pair * PAIRS:9.2f} s an epoch",
                flush=True,
            )
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.epochs", description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--backends", nargs="+", default=["cuda", "triton", "auto"])
    parser.add_argument("--nets", nargs="+", default=list(SIZES))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--members", type=int, help="instead of what fills a GPU")
    parser.add_argument("--samples", type=int)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    names = [name for name in options.backends if name == "auto" or backends.why_missing(name) is None]
    rows = []
    for net in options.nets:
        members, samples = options.members or SIZES[net][0], options.samples or SIZES[net][1]
        rows += measure(net, members, samples, options.device, names, options.methods, options.repeats)
    if options.out:
        content = {"machine": environment.describe(options.device), "rows": rows}
        options.out.write_text(json.dumps(content, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
