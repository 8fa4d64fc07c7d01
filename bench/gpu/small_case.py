"""Every kernel once, small enough for compute-sanitizer: every method and its gradient, in float32 and float64."""

import argparse
from collections.abc import Sequence

import torch

import glsk
from bench.gpu.cases import SHAPES, case
from bench.gpu.first import METHODS
from glsk import precision


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.small_case", description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--backend", default="cuda")
    parser.add_argument("--nets", nargs="+", default=["cnn3", "cnn5"])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    options = parser.parse_args(arguments)
    with precision.using_precision(precision.TRAINING_DEFAULT):  # brings in the deep kernel
        run(options)
    return 0


def run(options: argparse.Namespace) -> None:
    """Every net, shape, dtype and method that is asked for, forwards and backwards."""
    for net in options.nets:
        for shape in SHAPES.values() if net == "cnn3" else [SHAPES["MNIST"]]:
            for dtype in (torch.float32, torch.float64) if net == "cnn3" else (torch.float32,):
                bounded, given = case(net, shape, 2, 3, options.device, dtype, 0.02)
                for method in options.methods:
                    params = given["params"].clone().requires_grad_(net == "cnn3")
                    lower, upper = bounded.compute_bounds(
                        given["x"], C=given["C"], params=params, eps=0.1, clip=(0.0, 1.0), method=method,
                        backend=options.backend,
                    )  # fmt: skip
                    loss = glsk.robust_cross_entropy(lower, backend=options.backend)
                    if params.requires_grad:
                        loss.sum().backward()
                    print(net, dtype, shape, method, loss.tolist(), bool((lower <= upper).all()))


if __name__ == "__main__":
    raise SystemExit(main())
