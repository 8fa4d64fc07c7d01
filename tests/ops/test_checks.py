"""Bad arguments of every raw op are refused by name, by the op and by its fake implementation, before any work."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from glsk import ops
from glsk.geometry import Geometry, encode, linear
from tests.support import CPU_BACKENDS

P, B = 2, 3
CONV = Geometry(2, 4, 3, 3, 2, 4, 3, 2, 2, 1, 1, 1, 1)
HIDDEN, LAST = linear(CONV.out_features, 5, relu=True), linear(5, 4, relu=False)
LAYERS = [CONV, HIDDEN, LAST]


def geometry(layer: int = 0, **changes: int) -> list[int]:
    """The chain's geometry with one layer changed."""
    layers = list(LAYERS)
    layers[layer] = layers[layer]._replace(**changes)
    return encode(layers)


def chain() -> dict[str, Any]:
    """Good arguments of chain_bounds, by name."""
    return {
        "x_L": torch.zeros(1, B, 24),
        "x_U": torch.ones(1, B, 24),
        "weights": [torch.randn(P, *layer.weight_shape) for layer in LAYERS],
        "biases": [torch.randn(P, layer.out_channels) for layer in LAYERS],
        "C": torch.randn(B, 6, 4),
        "geometry": encode(LAYERS),
        "leaks": [0.0, 0.1, 0.0],
        "method": "CROWN",
        "prune": True,
        "bound_upper": True,
        "keep": True,
    }


def a_pass() -> dict[str, Any]:
    """Good arguments of crown_pass, by name."""
    good = chain()
    shapes = [(P, B, layer.out_features) for layer in LAYERS[:-1]]
    return {
        **{name: good[name] for name in ("x_L", "x_U", "weights", "biases")},
        "lowers": [-torch.ones(shape) for shape in shapes],
        "uppers": [torch.ones(shape) for shape in shapes],
        "lines": [torch.empty(0), torch.empty(0)],
        "C": good["C"],
        "known_lower": None,
        "known_upper": None,
        "geometry": good["geometry"],
        "leaks": good["leaks"],
        "rule": "adaptive",
        "bound_upper": True,
    }


def step() -> dict[str, Any]:
    """Good arguments of ibp_affine."""
    return {
        "lower": torch.zeros(P, B, 24),
        "upper": torch.ones(P, B, 24),
        "weight": torch.randn(P, *CONV.weight_shape),
        "bias": torch.randn(P, 3),
        "geometry": list(CONV),
        "relu": True,
        "leak": 0.0,
    }


def branch() -> dict[str, Any]:
    """Good arguments of branch_pass, by name: 4 subproblems of 3 images."""
    good, units = chain(), CONV.out_features + 5
    return {
        "x_L": torch.zeros(B, 24),
        "x_U": torch.ones(B, 24),
        "weights": [w[:1] for w in good["weights"]],
        "biases": [b[:1] for b in good["biases"]],
        "lower": -torch.ones(B, units),
        "upper": torch.ones(B, units),
        "index": torch.tensor([0, 0, 2, 1]),
        "splits": torch.zeros(4, units, dtype=torch.int8),
        "C": torch.randn(4, 2, 4),
        "start": torch.zeros(4, 2, units),
        "threshold": torch.zeros(4, 2),
        "parent": None,
        "extra": torch.tensor([1, 0, -units, 3], dtype=torch.int32),
        "columns": None,
        "planes": None,
        "geometry": good["geometry"],
        "leaks": good["leaks"],
        "iterations": 2,
        "lr_alpha": 0.1,
        "lr_beta": 0.1,
        "decay": 0.98,
        "duals": True,
        "coefficients": True,
        "corner": True,
    }


def planes() -> dict[str, Any]:
    """Good arguments of plane_search, by name: 3 rows."""
    good, units = branch(), CONV.out_features + 5
    shared = {name: good[name] for name in ("x_L", "x_U", "weights", "biases", "lower", "upper")}
    return {
        **shared,
        "splits": torch.zeros(B, units, dtype=torch.int8),
        "C": torch.randn(B, 4),
        "start": torch.zeros(B, units),
        "units": torch.tensor([[0, 3, 24]] * B),
        "shares": torch.full((B, 3, 12), 0.5),
        "geometry": good["geometry"],
        "leaks": [0.0] * 3,
        "iterations": 2,
    }


def box_relu() -> dict[str, Any]:
    names = ("box_lower", "box_upper", "lower", "upper")
    return {name: torch.zeros(P, B, 6) for name in names} | {"leak": 0.0}


def ascent() -> dict[str, Any]:
    """Good arguments of sign_ascent, by name: 5 rows."""
    good = chain()
    return {
        "start": torch.zeros(P, B, 5, 24),
        "lower": torch.zeros(P, B, 24),
        "upper": torch.ones(P, B, 24),
        "weights": good["weights"],
        "biases": good["biases"],
        "rows": torch.randn(B, 5, 4),
        "labels": None,
        "geometry": good["geometry"],
        "leaks": good["leaks"],
        "step": 0.5,
        "steps": 2,
    }


GOOD: dict[str, Callable[[], dict[str, Any]]] = {
    "branch_pass": branch,
    "chain_bounds": chain,
    "crown_pass": a_pass,
    "optimised_pass": lambda: {**a_pass(), "iterations": 2, "lr": 0.1},
    "ibp_affine": step,
    "hbox_relu": box_relu,
    "plane_search": planes,
    "relu_relaxation": lambda: {"lower": torch.zeros(P, B, 6), "upper": torch.zeros(P, B, 6)},
    "robust_cross_entropy": lambda: {"margin_lower": torch.zeros(P, B, 9)},
    "sign_ascent": ascent,
}


def entry(name: str, k: int, value: Any) -> Callable[[dict[str, Any]], None]:
    """Entry k of a list replaced."""

    def change(arguments: dict[str, Any]) -> None:
        arguments[name] = list(arguments[name])
        arguments[name][k] = value(arguments[name][k]) if callable(value) else value

    return change


def argument(**values: Any) -> Callable[[dict[str, Any]], None]:
    """Arguments replaced."""
    return lambda arguments: arguments.update(
        {n: v(arguments[n]) if callable(v) and not isinstance(v, Tensor) else v for n, v in values.items()}
    )


def longer(values: list[Any]) -> list[Any]:
    return [*values, values[-1]]


def double(tensor: Tensor) -> Tensor:
    return tensor.double()


def meta(tensor: Tensor) -> Tensor:
    return tensor.to("meta")


GEOMETRIES = [
    (argument(geometry=[]), "geometry"),
    (argument(geometry=encode(LAYERS)[:-1]), "geometry"),
    (argument(geometry=geometry(out_height=3)), "out_height is 3"),
    (argument(geometry=geometry(out_width=3)), "out_width is 3"),
    (argument(geometry=geometry(stride_height=0)), "stride_height is 0"),
    (argument(geometry=geometry(stride_width=-1)), "stride_width is -1"),
    (argument(geometry=geometry(kernel_height=0)), "kernel_height is 0"),
    (argument(geometry=geometry(kernel_width=9)), "out_width is 4"),
    (argument(geometry=geometry(pad_height=-1)), "pad_height is -1"),
    (argument(geometry=geometry(in_channels=0)), "in_channels is 0"),
    (argument(geometry=geometry(in_height=-4)), "in_height is -4"),
    (argument(geometry=geometry(in_width=1 << 40)), "in_width is"),
    (argument(geometry=geometry(out_channels=1 << 40)), "out_channels is"),
    (argument(geometry=geometry(relu=2)), "relu is 2"),
    (argument(geometry=geometry(relu=-1)), "relu is -1"),
]
CHAINS = [
    *GEOMETRIES,
    (argument(geometry=geometry(1, in_channels=25)), "layer 1 reads"),
    (argument(geometry=geometry(2, in_channels=6)), "layer 2 reads"),
    (argument(geometry=encode([CONV, HIDDEN])), "expected 2 entries"),
    (argument(geometry=geometry(out_channels=4)), "layer 1 reads"),
    (argument(x_L=torch.zeros(1, B, 23)), "x_L"),
    (argument(x_L=torch.zeros(B, 24)), "x_L"),
    (argument(x_L=torch.zeros(P + 1, B, 24)), "x_L"),
    (argument(x_L=torch.zeros(1, 0, 24), x_U=torch.zeros(1, 0, 24)), "x_L: no samples"),
    (argument(x_U=torch.ones(1, B, 25)), "x_U"),
    (argument(x_U=torch.ones(1, B + 1, 24)), "x_U"),
    (argument(x_U=torch.ones(P, B, 24)), "x_U"),
    (argument(x_U=double), "x_U"),
    (argument(weights=longer), "weights: expected 3 entries"),
    (argument(weights=[]), "weights: expected 3 entries"),
    (argument(biases=longer), "biases: expected 3 entries"),
    (argument(biases=lambda b: b[:2]), "biases: expected 3 entries"),
    (entry("weights", 0, torch.zeros(P, 3, 2, 2, 2)), r"weights\[0\]"),
    (entry("weights", 0, torch.zeros(0, 3, 2, 3, 2)), r"weights\[0\]"),
    (entry("weights", 0, torch.zeros(3, 2, 3, 2)), r"weights\[0\]"),
    (entry("weights", 1, torch.zeros(P, 5, 24)), r"weights\[1\]"),
    (entry("weights", 1, torch.zeros(P + 1, 5, 24, 1, 1)), r"weights\[1\]"),
    (entry("weights", 2, double), r"weights\[2\]"),
    (entry("weights", 2, lambda w: w.half()), r"weights\[2\]"),
    (entry("weights", 2, meta), r"weights\[2\]"),
    (entry("biases", 0, torch.zeros(P, 2)), r"biases\[0\]"),
    (entry("biases", 1, torch.zeros(P, 1)), r"biases\[1\]"),
    (entry("biases", 2, torch.zeros(P + 1, 4)), r"biases\[2\]"),
    (entry("biases", 2, torch.zeros(4)), r"biases\[2\]"),
    (entry("biases", 2, double), r"biases\[2\]"),
    (entry("biases", 2, lambda b: b.int()), r"biases\[2\]"),
    (argument(C=torch.zeros(B, 6, 5)), "C"),
    (argument(C=torch.zeros(B + 1, 6, 4)), "C"),
    (argument(C=torch.zeros(6, 4)), "C"),
    (argument(C=torch.zeros(B, 0, 4)), "C"),
    (argument(C=double), "C"),
    (argument(C=meta), "C"),
    (argument(leaks=[0.0, 0.0]), "leaks: expected 3 entries"),
    (argument(leaks=longer), "leaks: expected 3 entries"),
    (argument(leaks=[0.0, -0.1, 0.0]), r"leaks\[1\]"),
    (argument(leaks=[1.5, 0.0, 0.0]), r"leaks\[0\]"),
    (argument(leaks=[float("nan"), 0.0, 0.0]), r"leaks\[0\]"),
]
PASSES = [
    *CHAINS,
    (argument(lowers=lambda t: t[:1]), "lowers: expected 2 entries"),
    (argument(uppers=longer), "uppers: expected 2 entries"),
    (argument(lines=[]), "lines: expected 2 entries"),
    (entry("lowers", 0, torch.zeros(P, B, 23)), r"lowers\[0\]"),
    (entry("lowers", 0, torch.zeros(1, B, 24)), r"lowers\[0\]"),
    (entry("lowers", 1, torch.zeros(P, B + 1, 5)), r"lowers\[1\]"),
    (entry("lowers", 1, torch.empty(0)), "layer 1 has an activation"),
    (entry("uppers", 1, torch.empty(0)), "layer 1 has an activation"),
    (entry("uppers", 0, torch.zeros(P, B, 24, 1)), r"uppers\[0\]"),
    (entry("uppers", 0, double), r"uppers\[0\]"),
    (entry("lines", 0, torch.zeros(P, B, 6, 24)), r"lines\[0\]"),
    (entry("lines", 0, torch.zeros(P, B, 6, 3, 24)), r"lines\[0\]"),
    (entry("lines", 0, torch.zeros(P, B, 5, 4, 24)), r"lines\[0\]"),
    (entry("lines", 1, torch.zeros(P, B + 1, 1, 4, 5)), r"lines\[1\]"),
    (entry("lines", 1, torch.zeros(P + 1, B, 1, 4, 5)), r"lines\[1\]"),
    (entry("lines", 1, torch.zeros(1, 1, 1, 4, 5).double()), r"lines\[1\]"),
    (
        argument(geometry=geometry(1, relu=0), lines=[torch.empty(0), torch.zeros(1, 1, 1, 4, 5)]),
        r"lines\[1\]: no activation follows layer 1",
    ),
    (argument(known_lower=torch.zeros(P, B, 4)), "go together"),
    (argument(known_lower=torch.zeros(P, B, 4), known_upper=torch.zeros(P, B, 4)), "not with C"),
    (argument(C=None, known_lower=torch.zeros(P, B, 5), known_upper=torch.zeros(P, B, 5)), "known_lower"),
    (argument(C=None, known_lower=torch.zeros(P, B, 4), known_upper=torch.zeros(1, B, 4)), "known_upper"),
    (argument(rule="CROWN"), "rule: unknown"),
]
BAD: dict[str, list[tuple[Callable[[dict[str, Any]], None], str]]] = {
    "branch_pass": [
        *GEOMETRIES,
        (argument(x_L=torch.zeros(1, B, 24)), "x_L"),
        (argument(x_L=torch.zeros(B, 23)), "x_L"),
        (argument(x_U=torch.zeros(B + 1, 24)), "x_U"),
        (argument(x_U=double), "x_U"),
        (argument(weights=chain()["weights"]), r"weights\[0\]"),
        (argument(biases=chain()["biases"]), r"biases\[0\]"),
        (argument(weights=longer), "weights"),
        (argument(lower=torch.zeros(B, 28)), "lower"),
        (argument(upper=torch.zeros(B + 1, 29)), "upper"),
        (argument(index=torch.zeros(4)), "index"),
        (argument(index=torch.zeros(4, 1, dtype=torch.int64)), "index"),
        (argument(index=torch.zeros(0, dtype=torch.int64)), "index: no subproblems"),
        (argument(index=None), "splits"),
        (argument(splits=torch.zeros(4, 29)), "splits"),
        (argument(splits=torch.zeros(4, 28, dtype=torch.int8)), "splits"),
        (argument(C=torch.zeros(3, 2, 4)), "C"),
        (argument(C=torch.zeros(4, 0, 4)), "C: expected at least one row"),
        (argument(C=double), "C"),
        (argument(start=torch.zeros(4, 1, 29)), "start"),
        (argument(threshold=torch.zeros(4)), "threshold"),
        (argument(parent=torch.zeros(4, dtype=torch.int32)), "parent: expected dense torch.int64"),
        (argument(parent=torch.zeros(3, dtype=torch.int64)), "parent"),
        (argument(parent=torch.tensor([0, 0, 4, 0])), r"parent: every entry must lie in \[0, 4\)"),
        (argument(parent=torch.zeros(4, dtype=torch.int64), start=torch.zeros(3, 2, 29)), "start"),
        (argument(extra=torch.zeros(4, dtype=torch.int64)), "extra: expected dense torch.int32"),
        (argument(extra=torch.tensor([0, 30, 0, 0], dtype=torch.int32)), r"extra: every entry must lie in \[-29, 30\)"),
        (argument(columns=torch.zeros(B, 2)), "columns: expected dense torch.int64"),
        (argument(planes=torch.zeros(B, CONV.out_features, 1)), "planes"),
        (argument(planes=torch.zeros(B - 1, CONV.out_features, 13)), "planes"),
        (argument(columns=torch.zeros(B, 2, dtype=torch.int64)), r"splits: expected \[4, 2\]"),
        (argument(columns=torch.arange(29).flip(0).expand(B, -1)), "columns: expected units below 29, ascending"),
        (argument(columns=torch.arange(29).expand(B, -1) + 2), "columns: expected units below 29, ascending"),
        (argument(leaks=[0.0, 1.5, 0.0]), r"leaks\[1\]"),
        (argument(iterations=0), "iterations"),
        (argument(lr_alpha=-0.1), "lr_alpha"),
        (argument(lr_beta=float("nan")), "lr_beta"),
        (argument(decay=float("inf")), "decay"),
    ],
    "chain_bounds": [
        *CHAINS,
        (argument(method="alpha-CROWN"), "method: unknown"),
        (argument(x_L=torch.zeros(P, B, 24), x_U=torch.ones(P, B, 24)), "one box for all members"),
        (
            lambda a: a.update(
                geometry=list(CONV),
                weights=a["weights"][:1],
                biases=a["biases"][:1],
                leaks=[0.0],
                C=torch.zeros(B, 6, 24),
            ),
            "C: the last layer must be linear",
        ),
    ],
    "crown_pass": PASSES,
    "optimised_pass": [
        *PASSES,
        (argument(iterations=0), "iterations"),
        (argument(lr=0.0), "lr"),
        (argument(lr=float("inf")), "lr"),
        (argument(lr=float("nan")), "lr"),
    ],
    "ibp_affine": [
        *((argument(geometry=list(CONV._replace(**change))), text) for change, text in [
            ({"out_height": 3}, "out_height is 3"), ({"stride_width": 0}, "stride_width is 0"),
            ({"pad_width": -1}, "pad_width is -1"), ({"in_channels": 3}, "lower"), ({"relu": 7}, "relu is 7"),
        ]),
        (argument(geometry=[]), "geometry"),
        (argument(geometry=encode([CONV, HIDDEN])), "expected one layer"),
        (argument(leak=-0.1), "leak: expected a slope"),
        (argument(leak=float("nan")), "leak: expected a slope"),
        (argument(lower=torch.zeros(P, B, 23)), "lower"),
        (argument(lower=torch.zeros(P + 1, B, 24)), "lower"),
        (argument(lower=torch.zeros(P, 0, 24), upper=torch.zeros(P, 0, 24)), "lower: no samples"),
        (argument(upper=torch.zeros(1, B, 24)), "upper"),
        (argument(upper=double), "upper"),
        (argument(weight=torch.zeros(P, 3, 2, 2, 3)), "weight"),
        (argument(weight=torch.zeros(3, 2, 3, 2)), "weight"),
        (argument(weight=torch.zeros(0, 3, 2, 3, 2)), "weight"),
        (argument(bias=torch.zeros(P, 2)), "bias"),
        (argument(bias=torch.zeros(1, 3)), "bias"),
        (argument(bias=meta), "bias"),
    ],
    "hbox_relu": [
        (argument(box_upper=torch.zeros(P, B, 5)), "box_upper"),
        (argument(lower=torch.zeros(1, B, 6)), "lower"),
        (argument(leak=1.5), "leak: expected a slope"),
        (argument(upper=double), "upper"),
        (argument(upper=meta), "upper"),
    ],
    "plane_search": [
        *GEOMETRIES,
        (argument(geometry=encode([CONV._replace(relu=0), HIDDEN, LAST])), "no activation follows the first layer"),
        (argument(x_L=torch.zeros(B, 23)), "x_L"),
        (argument(x_L=torch.zeros(0, 24)), "x_L: no rows"),
        (argument(x_U=double), "x_U"),
        (argument(weights=longer), "weights"),
        (argument(biases=chain()["biases"]), r"biases\[0\]"),
        (argument(leaks=[0.1, 0.0, 0.0]), "leaks: the first layer's must be 0"),
        (argument(lower=torch.zeros(B, 28)), "lower"),
        (argument(upper=torch.zeros(B + 1, 29)), "upper"),
        (argument(splits=torch.zeros(B, 29)), "splits"),
        (argument(C=torch.zeros(B, 1, 4)), "C"),
        (argument(start=torch.zeros(B, 28)), "start"),
        (argument(units=torch.zeros(B, 3)), "units: expected dense torch.int64"),
        (argument(units=torch.tensor([[0, 3, 25]] * B)), "units: expected units below 24, ascending"),
        (argument(units=torch.tensor([[3, 0, 24]] * B)), "units: expected units below 24, ascending"),
        (argument(shares=torch.zeros(B, 2, 12)), "shares"),
        (argument(shares=torch.zeros(B, 3, 13)), "shares"),
        (argument(iterations=0), "iterations"),
    ],
    "relu_relaxation": [
        (argument(upper=torch.zeros(P, B)), "upper"),
        (argument(upper=torch.zeros(P, B, 7)), "upper"),
        (argument(upper=double), "upper"),
    ],
    "robust_cross_entropy": [
        (argument(margin_lower=torch.zeros(P, 9)), "margin_lower"),
        (argument(margin_lower=torch.zeros(P, 0, 9)), "margin_lower"),
        (argument(margin_lower=torch.zeros(P, B, 0)), "margin_lower"),
    ],
    "sign_ascent": [
        *GEOMETRIES,
        (argument(start=torch.zeros(P, B, 24)), "start"),
        (argument(start=torch.zeros(3, B, 5, 24)), "start"),
        (argument(start=torch.zeros(P, B, 5, 23)), "start"),
        (argument(start=torch.zeros(P, B, 0, 24), rows=torch.zeros(B, 0, 4)), "start: no points"),
        (argument(lower=torch.zeros(B, 24)), "lower"),
        (argument(lower=double), "lower"),
        (argument(upper=torch.zeros(P, B + 1, 24)), "upper"),
        (argument(upper=torch.zeros(3, B, 24)), "upper"),
        (argument(weights=longer), "weights"),
        (argument(biases=[torch.zeros(P, 1)] * 3), r"biases\[0\]"),
        (argument(rows=torch.zeros(B, 4, 4)), "rows"),
        (argument(rows=torch.zeros(B, 5, 3)), "rows"),
        (argument(rows=double), "rows"),
        (argument(rows=None), "rows: expected either"),
        (argument(labels=torch.zeros(B, dtype=torch.int64)), "rows: expected either"),
        (argument(rows=None, labels=torch.zeros(B, dtype=torch.int64)), "labels"),
        (argument(rows=None, labels=torch.zeros(B), start=torch.zeros(P, B, 1, 24)), "labels"),
        (argument(rows=None, labels=torch.zeros(B + 1, dtype=torch.int64), start=torch.zeros(P, B, 1, 24)), "labels"),
        (argument(leaks=[0.0, 1.5, 0.0]), r"leaks\[1\]"),
        (argument(step=-0.1), "step"),
        (argument(step=float("nan")), "step"),
        (argument(step=float("inf")), "step"),
        (argument(steps=-1), "steps"),
    ],
}  # fmt: skip
CASES = [pytest.param(op, *case, id=f"{op}-{i}") for op, cases in BAD.items() for i, case in enumerate(cases)]


def bad(op: str, change: Callable[[dict[str, Any]], None]) -> list[Any]:
    arguments = GOOD[op]()
    change(arguments)
    return list(arguments.values())


def test_every_op_has_good_and_bad_arguments() -> None:
    assert set(GOOD) == set(BAD) == {op.name for op in ops.ALL}
    assert len(CASES) >= 100
    for name, arguments in GOOD.items():
        getattr(torch.ops.glsk, name)(*arguments().values(), "reference")


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize(("op", "change", "names"), CASES)
def test_a_bad_argument_is_named(op: str, change: Callable, names: str, backend: str) -> None:
    arguments = bad(op, change)
    with pytest.raises((ValueError, TypeError), match=names) as refused:
        getattr(torch.ops.glsk, op)(*arguments, backend)
    assert re.match(rf"{op}: ", str(refused.value))


@pytest.mark.parametrize(("op", "change", "names"), CASES)
def test_the_fake_implementation_refuses_it_too(op: str, change: Callable, names: str) -> None:
    if "every entry" in names or "ascending" in names:
        pytest.skip("a fake tensor has no values")
    arguments = bad(op, change)
    with FakeTensorMode() as mode:
        fakes = torch.utils._pytree.tree_map_only(Tensor, mode.from_tensor, arguments)
        with pytest.raises((ValueError, TypeError), match=names):
            getattr(torch.ops.glsk, op)(*fakes, "reference")


@pytest.mark.parametrize("op", GOOD)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.complex64])
def test_other_dtypes_are_refused(op: str, dtype: torch.dtype) -> None:
    arguments = torch.utils._pytree.tree_map_only(Tensor, lambda t: t.to(dtype), list(GOOD[op]().values()))
    with pytest.raises(TypeError, match="expected float32 or float64"):
        getattr(torch.ops.glsk, op)(*arguments, "reference")


@pytest.mark.parametrize("op", GOOD)
def test_sparse_tensors_are_refused(op: str) -> None:
    arguments = GOOD[op]()
    name = next(name for name, value in arguments.items() if isinstance(value, Tensor))
    arguments[name] = arguments[name].to_sparse()
    with pytest.raises((TypeError, NotImplementedError)):
        getattr(torch.ops.glsk, op)(*arguments.values(), "reference")


OPTIONAL = ("C", "extra", "index", "rows", "splits", "start", "threshold")


@pytest.mark.parametrize(
    ("op", "name"),
    [(op, n) for op, good in GOOD.items() for n, v in good().items() if isinstance(v, Tensor) and n not in OPTIONAL],
)
def test_none_is_no_tensor(op: str, name: str) -> None:
    arguments = {**GOOD[op](), name: None}
    with pytest.raises(TypeError, match=f"{op}: {name}: expected a tensor, got None"):
        getattr(torch.ops.glsk, op)(*arguments.values(), "reference")


@pytest.mark.parametrize("op", GOOD)
def test_an_unknown_backend_is_refused(op: str) -> None:
    with pytest.raises(ValueError, match="backend: unknown 'gpu'"):
        getattr(torch.ops.glsk, op)(*GOOD[op]().values(), "gpu")
