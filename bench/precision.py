"""What the precision of products does to training: PGPE's gradient estimate, compared with the one in float64.

    python -m bench.precision --out bench/results/precision.json
    python -m bench.precision --members 16 8 --samples 64 8 --append --out bench/results/precision.json \\
        --precisions fp16 "fp16, activations too" "tf32 to nearest"

The kernels' products are emulated in plain PyTorch: operands are rounded as the kernels or the tensor cores round them,
a product of two rounded operands is exact in float32, and sums are float32 (how a tensor core rounds its sums is not
public). The networks are the PGD-trained ones of tests/golden, the population antithetic around them, sigma = 1e-3.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

import glsk
from bench import environment
from bench.workloads import Workload, trained, workload
from glsk.geometry import Geometry
from glsk.ops import affine

Product = Callable[[Tensor, Tensor, Geometry], Tensor]

PAIRS = 32
"""(member, sample) pairs at a time: what the reference holds of them is large."""

LEAST = 0.999
"""Cosine below which a precision may not be used in training."""


def tf32(value: Tensor) -> Tensor:
    """The part that a TF32 operand keeps: sign, exponent and 10 bits, the rest cut off."""
    return (value.view(torch.int32) & -8192).view(torch.float32)


def bf16(value: Tensor) -> Tensor:
    return value.bfloat16().float()


def tf32_nearest(value: Tensor) -> Tensor:
    """TF32 rounded to nearest, ties to even: an error without a direction."""
    bits = value.view(torch.int32)
    return ((bits + 0xFFF + (bits >> 13 & 1)) & -8192).view(torch.float32)


def fp16(value: Tensor) -> Tensor:
    """FP16 rounded to nearest, of a tensor scaled by a power of two so that its largest value is near 2^14."""
    most = value.abs().max()
    scale = torch.exp2(14 - most.clamp(min=1e-30).log2().ceil())
    return (value * scale).half().float() / scale


def _two_parts(rounded: Callable[[Tensor], Tensor], value: Tensor) -> tuple[Tensor, Tensor]:
    high = rounded(value)
    return high, rounded(value - high)


def _three_products(rounded: Callable[[Tensor], Tensor], product: Product, a: Tensor, w: Tensor, g: Geometry) -> Tensor:
    (high, low), (w_high, w_low) = _two_parts(rounded, a), _two_parts(rounded, w)
    return product(low, w_high, g) + product(high, w_low, g) + product(high, w_high, g)


PRECISIONS: dict[str, Callable[[Product, Tensor, Tensor, Geometry], Tensor]] = {
    "ieee": lambda product, a, w, g: product(a, w, g),
    "tf32x3": lambda product, a, w, g: _three_products(tf32, product, a, w, g),
    "bf16x3": lambda product, a, w, g: _three_products(bf16, product, a, w, g),
    "tf32": lambda product, a, w, g: product(tf32(a), tf32(w), g),
    "tf32 to nearest": lambda product, a, w, g: product(tf32_nearest(a), tf32_nearest(w), g),
    "fp16": lambda product, a, w, g: product(fp16(a), fp16(w), g),
    "fp16, activations too": lambda product, a, w, g: product(fp16(a), fp16(w), g),
}
"""Those of ``glsk.precision.set_precision``, and one product of operands rounded to nearest, also with steps through
activations of FP16 numbers: coefficients, and the lines' slopes and intercepts."""

HARMLESS = 0.01
"""Of the estimator's own sampling error: what the error of a precision, rounded to nearest, may be."""


def sampling_error(parameters: int, pairs: int, residual: float = 1.0) -> float:
    """1 - cos^2 between PGPE's estimate by so many antithetic pairs and the gradient it estimates, as expected.

    Its noise is ``residual * (D + 1) / m`` times the gradient's square; ``residual``: what a control variate leaves.
    """
    noise = residual * (parameters + 1) / pairs
    return noise / (1 + noise)


@contextmanager
def emulated(precision: str) -> Iterator[None]:
    """The reference multiplies as the kernels do; weights that are a row's first coefficients stay as they are."""
    multiply = PRECISIONS[precision]
    forward, transposed = affine.forward, affine.transposed

    def back(rows: Tensor, weight: Tensor, layer: Geometry) -> Tensor:
        if _is_identity(rows):
            return transposed(rows, weight, layer)
        return multiply(transposed, rows, weight, layer)

    module = sys.modules["glsk.ops.crown_pass"]
    through = module.through

    def through_of_halves(rows: Tensor, lines: Tensor) -> tuple[Tensor, Tensor]:
        slopes, intercepts = lines[..., ::2, :].half().float(), fp16(lines[..., 1::2, :])
        return through(fp16(rows), torch.stack([slopes, intercepts], dim=-2).flatten(-3, -2))

    try:
        affine.forward = lambda values, weight, layer: multiply(forward, values, weight, layer)
        affine.transposed = back
        if precision == "fp16, activations too":
            module.through = through_of_halves
        yield
    finally:
        affine.forward, affine.transposed, module.through = forward, transposed, through


def _is_identity(rows: Tensor) -> bool:
    one = rows[0, 0]
    return one.shape[0] == one.shape[1] and torch.equal(one.abs(), torch.eye(len(one), dtype=one.dtype))


def losses(work: Workload, precision: str, method: str = "CROWN") -> Tensor:
    """Every member's robust loss [P], in a precision of :data:`PRECISIONS` or in float64; a few samples at a time."""
    dtype = torch.float64 if precision == "float64" else torch.float32
    bounded = glsk.BoundedModule(work.net, tuple(work.x_L.shape[1:]))
    few = max(1, PAIRS // work.members)

    def of(at: slice) -> Tensor:
        lower, _ = bounded.compute_bounds(
            x_L=work.x_L[at].to(dtype),
            x_U=work.x_U[at].to(dtype),
            C=work.C[at].to(dtype),
            params={name: value.to(dtype) for name, value in work.params.items()},
            method=method,
            backend="auto" if precision == "float64" else "reference",
            bound_upper=False,
        )
        return glsk.robust_cross_entropy(lower, backend="reference").double() * len(work.C[at])

    def call() -> Tensor:
        parts = [of(slice(first, first + few)) for first in range(0, work.samples, few)]
        return torch.stack(parts).sum(0) / work.samples

    if precision == "float64":
        return call()
    with emulated(precision):
        return call()


def gradient(work: Workload, loss: Tensor) -> Tensor:
    """PGPE's estimate [D] from the losses of antithetic members, up to a factor."""
    half = work.members // 2
    centre = dict(trained(work.name).named_parameters())
    noise = torch.cat(
        [(v[:half] - centre[name].detach()).double().flatten(1) for name, v in work.params.items()], dim=1
    )
    return (loss[:half] - loss[half:]) @ noise


def compare(work: Workload, precisions: Sequence[str]) -> Iterator[dict[str, object]]:
    """One row a precision: the cosine, and the largest relative error of a member's loss and of a pair's difference."""
    exact = losses(work, "float64")
    wanted = gradient(work, exact)
    half = work.members // 2
    own = sampling_error(wanted.numel(), half)
    for precision in precisions:
        found = losses(work, precision)
        change, true_change = found[:half] - found[half:], exact[:half] - exact[half:]
        cosine = float(cosine_similarity(gradient(work, found), wanted, dim=0))
        yield {
            "net": work.name,
            "precision": precision,
            "members": work.members,
            "samples": work.samples,
            "cosine": cosine,
            "error": 1 - cosine**2,
            "share_of_sampling_error": (1 - cosine**2) / own,
            "loss_error": float(((found - exact) / exact).abs().max()),
            "difference_error": float((change - true_change).norm() / true_change.norm()),
        }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.precision", description=__doc__)
    parser.add_argument("--nets", nargs="+", choices=("cnn3", "cnn5"), default=["cnn3", "cnn5"])
    parser.add_argument("--members", type=int, nargs="+", default=[32, 16], help="of each net, even")
    parser.add_argument("--samples", type=int, nargs="+", default=[8, 2], help="of each net")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--append", action="store_true", help="keep the rows that the file has")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args(arguments)
    rows: list[dict[str, object]] = json.loads(options.out.read_text())["rows"] if options.append else []
    source = ""
    for net, members, samples in zip(options.nets, options.members, options.samples, strict=False):
        work = workload(net, members, samples)
        source = work.source
        print(f"{net}, {members} members, {samples} images ({source})", flush=True)
        for row in compare(work, options.precisions):
            rows.append(row | {"commit": environment.describe()["commit"]})
            allowed = "allowed" if float(str(row["cosine"])) >= LEAST else "not allowed"
            print(
                f"  {row['precision']:21} cosine {row['cosine']:.9f} ({allowed} in training)  "
                f"loss {row['loss_error']:.1e}  difference {row['difference_error']:.1e}  "
                f"{row['share_of_sampling_error']:.1e} of the sampling error",
                flush=True,
            )
    if options.out:
        text = json.dumps({"machine": environment.describe(), "images": source, "rows": rows}, indent=1)
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
