"""Good arguments of the raw ops, of random shapes."""

import math
from collections.abc import Callable
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from glsk.geometry import Geometry, encode, linear
from glsk.lines import RULES
from glsk.ops.chain_bounds import METHODS

SIZES = (1, 2, 3, 5, 9, 17)


@st.composite
def layers(draw: st.DrawFn) -> list[Geometry]:
    """A chain of convolutions and then linear layers; the last is linear, mostly."""
    found: list[Geometry] = []
    shape = (draw(st.sampled_from((1, 2, 3))), draw(st.integers(1, 6)), draw(st.integers(1, 6)))
    for _ in range(draw(st.integers(0, 2))):
        pads = draw(st.integers(0, 2)), draw(st.integers(0, 2))
        kernel = tuple(draw(st.integers(1, min(4, n + 2 * p))) for n, p in zip(shape[1:], pads, strict=True))
        stride = draw(st.integers(1, 3)), draw(st.integers(1, 3))
        out = [(n + 2 * p - k) // s + 1 for n, p, k, s in zip(shape[1:], pads, kernel, stride, strict=True)]
        channels = draw(st.sampled_from((1, 2, 3, 5)))
        relu = draw(st.sampled_from((1, 1, 1, 0)))
        found.append(Geometry(*shape, channels, *out, *kernel, *stride, *pads, relu))
        shape = (channels, *out)
    units = shape[0] * shape[1] * shape[2]
    for _ in range(draw(st.integers(0 if found else 1, 3))):
        outputs = draw(st.sampled_from(SIZES))
        found.append(linear(units, outputs, relu=draw(st.sampled_from((True, True, False)))))
        units = outputs
    found[-1] = found[-1]._replace(relu=0)
    return found


@st.composite
def arguments(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """An op's name and its arguments by name, without the backend."""
    op = draw(st.sampled_from(sorted(_MAKERS)))
    chain = draw(layers())
    numbers = _Numbers(draw(st.integers(0, 2**31)), draw(st.sampled_from([torch.float32, torch.float64])))
    members, samples = draw(st.sampled_from((1, 2, 3))), draw(st.sampled_from((0, 1, 2, 5, 17)))
    return op, _MAKERS[op](draw, chain, numbers, members, samples)


class _Numbers:
    """Random tensors of one dtype."""

    def __init__(self, seed: int, dtype: torch.dtype) -> None:
        self.generator, self.dtype = torch.Generator().manual_seed(seed), dtype

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, dtype=self.dtype)

    def interval(self, *shape: int) -> tuple[Tensor, Tensor]:
        center, radius = self.normal(*shape), self.normal(*shape).abs()
        return center - radius, center + radius


def _operands(
    draw: st.DrawFn, chain: list[Geometry], numbers: _Numbers, members: int, samples: int, boxes: int
) -> dict[str, Any]:
    x_L, x_U = numbers.interval(boxes, samples, chain[0].in_features)
    rows = draw(st.sampled_from((None, 1, 4, 9))) if chain[-1].is_linear else None
    return {
        "x_L": x_L,
        "x_U": x_U,
        "weights": [numbers.normal(members, *layer.weight_shape) for layer in chain],
        "biases": [numbers.normal(members, layer.out_channels) for layer in chain],
        "C": None if rows is None else numbers.normal(samples, rows, chain[-1].out_features),
        "geometry": encode(chain),
        "leaks": [draw(st.sampled_from((0.0, 0.1, 1.0))) for _ in chain],
    }


def _chain_bounds(draw: st.DrawFn, chain: list[Geometry], numbers: _Numbers, P: int, B: int) -> dict[str, Any]:
    return {
        **_operands(draw, chain, numbers, P, B, 1),
        "method": draw(st.sampled_from(METHODS)),
        "prune": draw(st.booleans()),
        "bound_upper": draw(st.booleans()),
        "keep": draw(st.booleans()),
    }


def _crown_pass(draw: st.DrawFn, chain: list[Geometry], numbers: _Numbers, P: int, B: int) -> dict[str, Any]:
    found = _operands(draw, chain, numbers, P, B, draw(st.sampled_from((1, P))))
    C, geometry, leaks = (found.pop(name) for name in ("C", "geometry", "leaks"))
    rows = chain[-1].out_features if C is None else C.shape[1]
    none = numbers.normal(0)
    lowers, uppers, lines = [], [], []
    for layer in chain[:-1]:
        given = draw(st.sampled_from((False, False, True)))
        lower, upper = numbers.interval(P, B, layer.out_features)
        given, bounded = layer.relu and given, layer.relu and not given
        lowers.append(lower if bounded else none)
        uppers.append(upper if bounded else none)
        shape = [draw(st.sampled_from((1, n))) for n in (P, B, rows)]
        lines.append(numbers.normal(*shape, 4, layer.out_features) if given else none)
    known = numbers.interval(P, B, rows) if C is None and draw(st.booleans()) else (None, None)
    return {
        **found,
        "lowers": lowers,
        "uppers": uppers,
        "lines": lines,
        "C": C,
        "known_lower": known[0],
        "known_upper": known[1],
        "geometry": geometry,
        "leaks": leaks,
        "rule": draw(st.sampled_from(sorted(RULES))),
        "bound_upper": draw(st.booleans()),
    }


def _optimised_pass(draw: st.DrawFn, chain: list[Geometry], numbers: _Numbers, P: int, B: int) -> dict[str, Any]:
    return {**_crown_pass(draw, chain, numbers, P, B), "iterations": draw(st.integers(1, 3)), "lr": 0.1}


def _branch_pass(draw: st.DrawFn, chain: list[Geometry], numbers: _Numbers, P: int, B: int) -> dict[str, Any]:
    found = _operands(draw, chain, numbers, 1, P, 1)
    C, geometry, leaks = (found.pop(name) for name in ("C", "geometry", "leaks"))
    units, rows = sum(layer.out_features for layer in chain[:-1]), 1 if C is None else C.shape[1]
    index = [draw(st.integers(0, P - 1)) for _ in range(B)]
    splits = [[draw(st.sampled_from((-1, 0, 0, 1))) for _ in range(units)] for _ in range(B)]
    lower, upper = numbers.interval(P, units)
    return {
        **{name: end[0] if isinstance(end, Tensor) else end for name, end in found.items()},
        "lower": lower,
        "upper": upper,
        "index": torch.tensor(index),
        "splits": torch.tensor(splits, dtype=torch.int8).view(B, units),
        "C": numbers.normal(B, rows, chain[-1].out_features),
        "start": numbers.normal(B, rows, units) if draw(st.booleans()) else None,
        "threshold": None,
        **dict.fromkeys(("parent", "extra", "columns", "planes")),
        "geometry": geometry,
        "leaks": leaks,
        "iterations": draw(st.integers(1, 2)),
        "lr_alpha": 0.1,
        "lr_beta": 0.1,
        "decay": 0.98,
        **{name: draw(st.booleans()) for name in ("duals", "coefficients", "corner")},
    }


def _plane_search(draw: st.DrawFn, chain: list[Geometry], numbers: _Numbers, P: int, B: int) -> dict[str, Any]:
    found = _branch_pass(draw, chain, numbers, P, P)
    first = chain[0]
    named = sorted(draw(st.sets(st.integers(0, first.out_features - 1), max_size=4)))
    units = torch.tensor([[*named, first.out_features]] * P)
    return {
        **{name: found[name] for name in ("x_L", "x_U", "weights", "biases", "lower", "upper", "splits")},
        "C": numbers.normal(P, chain[-1].out_features),
        "start": numbers.normal(P, found["lower"].shape[1]),
        "units": units,
        "shares": numbers.normal(P, units.shape[1], math.prod(first.weight_shape[1:])),
        "geometry": found["geometry"],
        "leaks": [0.0, *found["leaks"][1:]],
        "iterations": draw(st.integers(1, 3)),
    }


def _ibp_affine(draw: st.DrawFn, chain: list[Geometry], numbers: _Numbers, P: int, B: int) -> dict[str, Any]:
    layer = chain[0]
    lower, upper = numbers.interval(draw(st.sampled_from((1, P))), B, layer.in_features)
    return {
        "lower": lower,
        "upper": upper,
        "weight": numbers.normal(P, *layer.weight_shape),
        "bias": numbers.normal(P, layer.out_channels),
        "geometry": encode([layer]),
        "relu": draw(st.booleans()),
        "leak": draw(st.sampled_from((0.0, 0.25))),
    }


def _hbox_relu(draw: st.DrawFn, chain: list[Geometry], numbers: _Numbers, P: int, B: int) -> dict[str, Any]:
    box, bounds = numbers.interval(P, B, chain[0].out_features), numbers.interval(P, B, chain[0].out_features)
    named = dict(zip(("box_lower", "box_upper", "lower", "upper"), (*box, *bounds), strict=True))
    return named | {"leak": draw(st.sampled_from((0.0, 0.25)))}


def _relu_relaxation(draw: st.DrawFn, chain: list[Geometry], numbers: _Numbers, P: int, B: int) -> dict[str, Any]:
    return dict(zip(("lower", "upper"), numbers.interval(P, B, chain[0].out_features), strict=True))


def _robust_cross_entropy(draw: st.DrawFn, chain: list[Geometry], numbers: _Numbers, P: int, B: int) -> dict[str, Any]:
    return {"margin_lower": numbers.normal(P, B, chain[0].out_features)}


def _sign_ascent(draw: st.DrawFn, chain: list[Geometry], numbers: _Numbers, P: int, B: int) -> dict[str, Any]:
    found = _operands(draw, chain, numbers, P, B, draw(st.sampled_from((1, P))))
    labelled, outputs = draw(st.booleans()), chain[-1].out_features
    points = 1 if labelled else draw(st.sampled_from((1, 3)))
    return {
        "start": numbers.normal(draw(st.sampled_from((1, P))), B, points, chain[0].in_features),
        "lower": found["x_L"],
        "upper": found["x_U"],
        "weights": found["weights"],
        "biases": found["biases"],
        "rows": None if labelled else numbers.normal(B, points, outputs),
        "labels": torch.tensor([draw(st.integers(0, outputs - 1)) for _ in range(B)]).long() if labelled else None,
        "geometry": found["geometry"],
        "leaks": found["leaks"],
        "step": draw(st.sampled_from((0.0, 0.5))),
        "steps": draw(st.integers(0, 3)),
    }


_MAKERS: dict[str, Callable[..., dict[str, Any]]] = {
    "chain_bounds": _chain_bounds,
    "branch_pass": _branch_pass,
    "plane_search": _plane_search,
    "crown_pass": _crown_pass,
    "optimised_pass": _optimised_pass,
    "ibp_affine": _ibp_affine,
    "hbox_relu": _hbox_relu,
    "relu_relaxation": _relu_relaxation,
    "robust_cross_entropy": _robust_cross_entropy,
    "sign_ascent": _sign_ascent,
}
