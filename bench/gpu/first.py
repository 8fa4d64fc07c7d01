"""Every kernel against float64, in half a minute: the bounds of all methods and their gradients, in every precision.

    python -m bench.gpu.first --out first.json

The file holds the largest error of each, relative to the largest bound: how tensor cores align and cut off sums is not
public, so it is measured.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

import glsk
from bench import environment
from bench.gpu.cases import SHAPES, case
from glsk import backends
from glsk.precision import ACCURATE, NAMES, using_precision

MOST = {"ieee": 1e-4, "tf32x3": 1e-4, "bf16x3": 1e-3, "fp16": 1e-2, "tf32": 3e-2}
"""Largest error of the bounds that passes, by precision."""
GRADIENT = 1e-3
"""Of gradients, in the accurate precisions. Of the coarse ones only bounds are held: a slope may change its sign."""
METHODS = ("IBP", "HBox", "CROWN-IBP", "CROWN", "DeepZ")
MEMBERS, SAMPLES = 8, 64  # enough to fill a device, so that its own kernels are taken


def errors(
    device: str,
    names: Sequence[str],
    nets: Sequence[str],
    images: Sequence[str],
    methods: Sequence[str],
    size: tuple[int, int],
) -> Iterator[dict]:
    """One row for every network, kind of images, method, backend and precision; size: members and samples."""
    for net in nets:
        for data in images:
            shape = SHAPES[data]
            exact, wanted_arguments = case(net, shape, *size, device, torch.float64, 0.02)
            bounded, arguments = case(net, shape, *size, device, torch.float32, 0.02)
            for method in methods:
                wanted = _bounds(exact, wanted_arguments, method, "reference")
                for backend in names:
                    for precision in NAMES:
                        with using_precision(precision):
                            found = _bounds(bounded, arguments, method, backend)
                        row = {"net": net, "data": data, "method": method, "backend": backend, "precision": precision}
                        yield row | {"error": _error(found, wanted), "most": MOST[precision]}
                if net == "cnn3":
                    yield from _gradients(exact, wanted_arguments, bounded, arguments, method, names, data)


def _gradients(
    exact: glsk.BoundedModule,
    wanted_arguments: dict[str, Tensor],
    bounded: glsk.BoundedModule,
    arguments: dict[str, Tensor],
    method: str,
    names: Sequence[str],
    data: str,
) -> Iterator[dict]:
    few = slice(0, 4)
    wanted = [_gradient(exact, wanted_arguments, method, "reference", few)]
    for backend in names:
        with using_precision(ACCURATE[0]):
            found = [_gradient(bounded, arguments, method, backend, few)]
        row = {
            "net": "cnn3",
            "data": data,
            "method": f"{method}, gradient",
            "backend": backend,
            "precision": ACCURATE[0],
        }
        yield row | {"error": _error(found, wanted), "most": GRADIENT}


def _bounds(bounded: glsk.BoundedModule, arguments: dict[str, Tensor], method: str, backend: str) -> list[Tensor]:
    """Of the margins and, by CROWN, of every hidden unit."""
    options = {"eps": 0.05, "clip": (0.0, 1.0), "method": method, "backend": backend, "check_finite": False}
    with torch.no_grad():
        found = list(bounded.compute_bounds(**arguments, prune=False, **options))
        if method == "CROWN":
            given = {name: tensor for name, tensor in arguments.items() if name != "C"}
            inner = bounded.intermediate_bounds(**given, **options)
            found += [bound for pair in inner.values() for bound in pair]
    return found


def _gradient(
    bounded: glsk.BoundedModule, arguments: dict[str, Tensor], method: str, backend: str, few: slice
) -> Tensor:
    params = arguments["params"][few].clone().requires_grad_()
    lower, _ = bounded.compute_bounds(
        arguments["x"][few], C=arguments["C"][few], params=params, eps=0.02, clip=(0.0, 1.0), method=method,
        backend=backend, check_finite=False, prune=False,
    )  # fmt: skip
    (found,) = torch.autograd.grad(glsk.robust_cross_entropy(lower, backend="reference").sum(), params)
    return found


def _error(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """The largest of all, each relative to the largest of its tensor; infinite where there is a NaN."""
    each = [
        float((f.double() - w).abs().max() / w.abs().max().clamp(min=1e-9)) for f, w in zip(found, wanted, strict=True)
    ]
    return max(error if error == error else float("inf") for error in each)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.first", description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--nets", nargs="+", default=["cnn3", "cnn5"])
    parser.add_argument("--backends", nargs="+", default=["cuda", "triton"])
    parser.add_argument("--data", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--members", type=int, default=MEMBERS)
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    names = [name for name in options.backends if backends.why_missing(name) is None]
    for name in set(options.backends) - set(names):
        print(f"{name} is not here: {backends.why_missing(name)}")
    rows = []
    size = options.members, options.samples
    for row in errors(options.device, names, options.nets, options.data, options.methods, size):
        rows.append(row)
        if row["error"] > row["most"]:
            print("WRONG:", row, flush=True)
    for precision in NAMES:
        worst = max((row["error"] for row in rows if row["precision"] == precision), default=float("nan"))
        print(f"{precision}: largest error {worst:.1e}")
    if options.out:
        content = {"machine": environment.describe(options.device), "rows": rows}
        options.out.write_text(json.dumps(content, indent=1) + "\n")
    return int(not rows or any(row["error"] > row["most"] for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())
