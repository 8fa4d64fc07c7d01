"""Every op as PyTorch sees it: schema, fake implementation, gradients and compilation, for every backend.

``samples`` gives each op small arguments (float64, away from the kinks of its relaxation).
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from glsk import geometry, ops
from glsk.geometry import Geometry, encode
from glsk.lines import RULES
from glsk.ops import Op
from glsk.ops.chain_bounds import METHODS
from tests.support import CPU_BACKENDS, NATIVE

CONV = Geometry(2, 4, 3, 3, 2, 3, 3, 2, 2, 1, 1, 1, 1)  # 2x4x3 -> 3x2x4 is written out below
CONV = CONV._replace(out_width=(3 + 2 - 2) // 1 + 1)
HIDDEN = geometry.linear(CONV.out_features, 5, relu=True)
LAST = geometry.linear(5, 4, relu=False)
P, B = 2, 3


def _weights(layers: list[Geometry]) -> tuple[list[Tensor], list[Tensor]]:
    weights = [torch.randn(P, *layer.weight_shape, dtype=torch.float64) / 4 for layer in layers]
    return weights, [torch.randn(P, layer.out_channels, dtype=torch.float64) for layer in layers]


def _interval(*shape: int, width: float = 1.0) -> tuple[Tensor, Tensor]:
    """Random intervals with every kind of ReLU among them, none near a kink."""
    center = torch.randn(shape, dtype=torch.float64)
    radius = width * (0.1 + torch.rand(shape, dtype=torch.float64))
    lower, upper = center - radius, center + radius
    for value in (lower, upper, lower + upper):
        upper = upper + torch.where(value.abs() < 0.02, 0.07, 0.0)
    return torch.where(lower.abs() < 0.02, lower - 0.05, lower), upper


def listed(layer: Geometry, lower: Tensor, upper: Tensor, splits: Tensor | None) -> tuple[Tensor, Tensor]:
    """Of each row all free unstable units of the first layer, and chords' shares."""
    n = layer.out_features
    low, up = lower[:, :n], upper[:, :n]
    free = (low < 0) & (up > 0) if splits is None else (low < 0) & (up > 0) & (splits[:, :n] == 0)
    units = torch.where(free, torch.arange(n), n).sort(dim=1).values[:, : int(free.sum(dim=1).max())].contiguous()
    chords = torch.nn.functional.pad(up / (up - low), (0, 1)).gather(1, units)
    return units, chords[..., None].repeat(1, 1, math.prod(layer.weight_shape[1:]))


def samples(op: Op) -> Iterator[tuple[Any, ...]]:
    """Arguments of ``op`` without the backend; several where an argument is optional."""
    torch.manual_seed(0)
    box = _interval(1, B, CONV.in_features, width=0.3)
    weights, biases = _weights([CONV, HIDDEN, LAST])
    bounds = [_interval(P, B, layer.out_features) for layer in (CONV, HIDDEN)]
    lowers, uppers = [b[0] for b in bounds], [b[1] for b in bounds]
    C = torch.randn(B, 2, 4, dtype=torch.float64)
    everything = encode([CONV, HIDDEN, LAST])
    none, plain = box[0].new_empty(0), [0.0, 0.0, 0.0]
    if op is ops.chain_bounds:
        for method in METHODS:
            yield *box, weights, biases, C, everything, plain, method, False, True, False
        for method in METHODS:
            yield *box, weights, biases, C, everything, [0.25, 0.5, 0.0], method, False, True, True
        yield *box, weights, biases, None, everything, plain, "CROWN", True, False, False
        yield *box, weights[:1], biases[:1], None, encode([CONV]), plain[:1], "CROWN", True, True, True
        straight = encode([CONV._replace(relu=0), HIDDEN, LAST])
        yield *box, weights, biases, None, straight, plain, "CROWN", True, True, True
    elif op is ops.ibp_affine:
        yield *box, weights[0], biases[0], list(CONV), False, 0.0
        yield *bounds[0], weights[1], biases[1], list(HIDDEN), True, 0.0
        yield *bounds[0], weights[1], biases[1], list(HIDDEN), True, 0.25
    elif op is ops.crown_pass:
        made, leaks = [none, none], [0.25, 0.5, 0.0]
        for rule in RULES:
            yield *box, weights, biases, lowers, uppers, made, C, None, None, everything, plain, rule, True
            yield *box, weights, biases, lowers, uppers, made, None, None, None, everything, leaks, rule, False
        radius = (box[1] - box[0]) / 2
        nothing = [torch.zeros_like(bias) for bias in biases]
        yield -radius, radius, weights, nothing, lowers, uppers, made, C, None, None, everything, plain, "mask", False
        known = bounds[1][0] - 1, bounds[1][1] + 1
        first = *box, weights[:2], biases[:2], lowers[:1], uppers[:1], [none]
        yield *first, None, *known, encode([CONV, HIDDEN]), plain[:2], "adaptive", True
        yield *box, weights[:1], biases[:1], [], [], [], None, None, None, encode([CONV]), [0.0], "adaptive", True
        straight = encode([CONV._replace(relu=0), HIDDEN])
        yield (
            *box,
            weights[:2],
            biases[:2],
            [none],
            [none],
            [none],
            None,
            None,
            None,
            straight,
            [0.0, 0.0],
            "mask",
            True,
        )
        for shape in ((P, B, 2), (1, 1, 1), (P, 1, 2), (1, B, 1)):
            given = [torch.randn(*shape, 4, layer.out_features, dtype=torch.float64) for layer in (CONV, HIDDEN)]
            yield (
                *box,
                weights,
                biases,
                [none] * 2,
                [none] * 2,
                given,
                C,
                None,
                None,
                everything,
                plain,
                "adaptive",
                True,
            )
        mixed = [given[0], none], [none, lowers[1]], [none, uppers[1]]
        yield *box, weights, biases, *mixed[1:], mixed[0], C, None, None, everything, leaks, "parallel", True
    elif op is ops.optimised_pass:
        for steps in (1, 3):
            made, leaks = [none, none], [0.25, 0.5, 0.0]
            first = *box, weights, biases, lowers, uppers, made
            yield *first, C, None, None, everything, leaks, "adaptive", True, steps, 0.1
            yield *first, None, None, None, everything, plain, "adaptive", False, steps, 0.1
    elif op is ops.branch_pass:
        image = box[0][0], box[1][0], [w[:1] for w in weights], [b[:1] for b in biases]
        packed = [torch.cat([bound[0] for bound in ends], dim=1) for ends in (lowers, uppers)]
        units, leaks, rates = packed[0].shape[1], [0.25, 0.5, 0.0], (0.1, 0.2, 0.98)
        yield *image, *packed, None, None, C, *[None] * 6, everything, plain, 4, *rates, True, True, True
        index, splits = torch.tensor([2, 0, 0, 1]), torch.randint(-1, 2, (4, units), dtype=torch.int8)
        subproblems = index, splits, torch.randn(4, 2, 4, dtype=torch.float64)
        start, limit = torch.rand(4, 2, units, dtype=torch.float64), torch.full((4, 2), -3.0, dtype=torch.float64)
        none = [None] * 4
        yield *image, *packed, *subproblems, start, limit, *none, everything, leaks, 3, *rates, True, False, True
        columns = torch.arange(units).expand(3, -1)[:, ::2].contiguous()
        children = torch.tensor([1, 0, 1, 1]), torch.tensor([1, 0, -2, 3], dtype=torch.int32), columns, None
        few = index, splits[:2, ::2].contiguous(), subproblems[2]
        yield *image, *packed, *few, None, None, *children, everything, leaks, 2, *rates, True, True, True
        yield *image, *packed, *subproblems, None, None, *none, everything, plain, 1, *rates, False, True, False
    elif op is ops.plane_search:
        image = box[0][0], box[1][0], [w[:1] for w in weights], [b[:1] for b in biases]
        packed = [torch.cat([bound[0] for bound in ends], dim=1) for ends in (lowers, uppers)]
        start, rows = torch.rand(packed[0].shape, dtype=torch.float64), torch.randn(B, 4, dtype=torch.float64)
        splits = torch.randint(-1, 2, packed[0].shape, dtype=torch.int8)
        for split, leaks, steps in ((None, plain, 1), (splits, [0.0, 0.5, 0.0], 4)):
            units, shares = listed(CONV, *packed, split)
            yield *image, *packed, split, rows, start, units, shares, everything, leaks, steps
    elif op is ops.hbox_relu:
        yield *_interval(P, B, 6), *_interval(P, B, 6), 0.0
        yield *_interval(P, B, 6), *_interval(P, B, 6), 0.25
    elif op is ops.relu_relaxation:
        yield _interval(P, B, 6)
        yield tuple(t.transpose(0, 2) for t in _interval(6, B, P))
    elif op is ops.robust_cross_entropy:
        yield (torch.randn(P, B, 9, dtype=torch.float64),)
    elif op is ops.sign_ascent:
        rows, labels, straight = (
            torch.randn(B, 5, 4, dtype=torch.float64),
            torch.tensor([3, 0, 1]),
            CONV._replace(relu=0),
        )
        own = _interval(P, B, CONV.in_features, width=0.3)
        one, many = box[0].unsqueeze(2), own[0].unsqueeze(2).expand(-1, -1, 5, -1)
        yield one, *box, weights, biases, None, labels, everything, plain, 0.4, 3
        yield many, *own, weights, biases, rows, None, everything, [0.25, 0.5, 0.0], 0.4, 3
        yield many[:1], *box, weights, biases, rows, None, encode([straight, HIDDEN, LAST]), plain, 0.4, 2
        yield one, *own, weights, biases, rows[:, :1], None, everything, plain, 0.4, 1
        yield (
            many,
            *own,
            weights[:1],
            biases[:1],
            torch.randn(B, 5, CONV.out_features).double(),
            None,
            list(CONV),
            [0.1],
            2.0,
            1,
        )
        yield one, *box, weights, biases, None, labels, everything, plain, 0.4, 0
    else:
        raise AssertionError(f"{op.name} has no sample")


def test_every_method_leaves_out_the_upper_bound() -> None:
    *arguments, method, prune, _, keep = sample(ops.chain_bounds, 0)
    for method in METHODS:
        for backend in CPU_BACKENDS:
            lower, upper, _ = ops.chain_bounds(*arguments, method, prune, False, keep, backend=backend)
            assert lower.shape == (P, B, 2)
            assert upper.shape == (0,)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_lines_that_are_not_given_have_an_empty_gradient(backend: str) -> None:
    arguments = tensors(sample(ops.crown_pass, 0), lambda t: t.detach().requires_grad_())
    lower, upper = ops.crown_pass(*arguments, backend=backend)
    lines = arguments[6]
    found = torch.autograd.grad((lower.sum(), upper.sum()), lines, allow_unused=True)
    assert [by is None or by.shape == given.shape for by, given in zip(found, lines, strict=True)] == [True, True]


CASES = [pytest.param(op, i, id=f"{op.name}-{i}") for op in ops.ALL for i in range(len(list(samples(op))))]
# An ascent's result has no gradient.
ASCENTS = (ops.optimised_pass, ops.branch_pass, ops.plane_search, ops.sign_ascent)
DIFFERENTIABLE = [case for case in CASES if case.values[0] not in ASCENTS]
STATIC_CHECKS = ("test_schema", "test_autograd_registration", "test_faketensor")
OPS = [pytest.param(op, id=op.name) for op in ops.ALL]
DIFFERENTIABLE_OPS = [op for op in OPS if op.values[0] not in ASCENTS]


def sample(op: Op, i: int) -> tuple[Any, ...]:
    return list(samples(op))[i]


def torch_op(op: Op) -> Any:
    return getattr(torch.ops.glsk, op.name)


def tensors(arguments: tuple[Any, ...], change: Callable[[Tensor], Tensor]) -> tuple[Any, ...]:
    """The arguments with ``change`` applied to every tensor of floating-point numbers."""

    def changed(tensor: Tensor) -> Tensor:
        return change(tensor) if tensor.is_floating_point() else tensor

    return torch.utils._pytree.tree_map_only(Tensor, changed, arguments)


def leaves(arguments: Any) -> list[Tensor]:
    return [leaf for leaf in torch.utils._pytree.tree_leaves(arguments) if isinstance(leaf, Tensor)]


def as_tuple(result: Any) -> tuple[Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


def test_all_holds_every_op() -> None:
    found = {op.name for op in vars(ops).values() if isinstance(op, Op)}
    assert {op.name for op in ops.ALL} == found
    assert all(hasattr(torch.ops.glsk, name) for name in found)
    assert all(op.__doc__ and op.__doc__.strip() for op in ops.ALL)


@pytest.mark.parametrize(("op", "i"), CASES)
@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_opcheck(op: Op, i: int, backend: str) -> None:
    """Schema, fake tensors (shapes, strides) and autograd registration, by PyTorch's own checks."""
    arguments = tensors(sample(op, i), lambda t: t.requires_grad_(t.numel() > 0))
    torch.library.opcheck(torch_op(op).default, (*arguments, backend), test_utils=STATIC_CHECKS)


@pytest.mark.slow
@pytest.mark.parametrize("op", DIFFERENTIABLE_OPS)
@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_opcheck_under_compilation(op: Op, backend: str) -> None:
    """Forward and backward through AOTAutograd with dynamic shapes: slow, so once an op and backend."""
    arguments = tensors(sample(op, 0), lambda t: t.requires_grad_(t.numel() > 0))
    torch.library.opcheck(torch_op(op).default, (*arguments, backend), test_utils="test_aot_dispatch_dynamic")


@pytest.mark.parametrize(("op", "i"), CASES)
@pytest.mark.parametrize("backend", NATIVE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_backend_equals_the_reference(op: Op, i: int, backend: str, dtype: torch.dtype) -> None:
    arguments = tensors(sample(op, i), lambda t: t.to(dtype))
    found = as_tuple(op(*arguments, backend=backend))
    wanted = as_tuple(op.reference(*sample(op, i)))
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    for f, w in zip(found, wanted, strict=True):
        assert f.dtype == dtype
        torch.testing.assert_close(f.double(), w, rtol=tolerance, atol=tolerance * 10)


@pytest.mark.parametrize(("op", "i"), DIFFERENTIABLE)
def test_gradcheck_of_the_reference(op: Op, i: int) -> None:
    """Numerical derivatives, which the kinks of a ReLU are kept away from."""
    arguments = sample(op, i)
    flat, spec = torch.utils._pytree.tree_flatten(list(arguments))
    where = [n for n, leaf in enumerate(flat) if isinstance(leaf, Tensor) and leaf.numel()]

    def function(*inputs: Tensor) -> tuple[Tensor, ...]:
        values = list(flat)
        for n, value in zip(where, inputs, strict=True):
            values[n] = value
        outputs = as_tuple(op(*torch.utils._pytree.tree_unflatten(values, spec), backend="reference"))
        return tuple(out for out in outputs if out.numel())

    inputs = [flat[n].clone().requires_grad_() for n in where]
    assert torch.autograd.gradcheck(function, inputs, eps=1e-7, atol=1e-5, fast_mode=True)


@pytest.mark.parametrize(("op", "i"), DIFFERENTIABLE)
@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_the_gradient_is_that_of_the_reference(op: Op, i: int, backend: str) -> None:
    gradients = []
    for call in (lambda *a: op.reference(*a), lambda *a: torch_op(op)(*a, backend)):
        arguments = tensors(sample(op, i), lambda t: t.requires_grad_(t.numel() > 0))
        outputs = [out for out in as_tuple(call(*arguments)) if out.requires_grad and out.numel()]
        wanted = [leaf for leaf in leaves(arguments) if leaf.requires_grad]
        total = sum((out * torch.arange(out.numel()).view(out.shape).cos()).sum() for out in outputs)
        gradients.append(torch.autograd.grad(total, wanted, allow_unused=True, materialize_grads=True))
    assert any(g.abs().sum() > 0 for g in gradients[0])
    for wanted, found in zip(*gradients, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("op", DIFFERENTIABLE_OPS)
@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_only_what_wants_a_gradient_gets_one(op: Op, backend: str) -> None:
    arguments = sample(op, 0)
    leaf = leaves(arguments)[-1 if op is ops.robust_cross_entropy else 0].requires_grad_()
    outputs = as_tuple(torch_op(op)(*arguments, backend))
    sum(out.sum() for out in outputs if out.requires_grad).backward()
    assert leaf.grad is not None
    assert all(other.grad is None for other in leaves(arguments) if other is not leaf)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
def test_compile_does_not_break_the_graph(op: Op, backend: str, compiler: str) -> None:
    arguments = sample(op, 0)

    def function(*inputs: Any) -> tuple[Tensor, ...]:
        return tuple(2 * out for out in as_tuple(torch_op(op)(*inputs, backend)))

    torch._dynamo.reset()
    compiled = torch.compile(function, backend=compiler, fullgraph=True)
    for found, wanted in zip(compiled(*arguments), function(*arguments), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def test_the_python_functions_compile_too() -> None:
    """``ops.<name>(..., backend=...)`` traces to the torch op."""
    arguments = sample(ops.relu_relaxation, 0)
    torch._dynamo.reset()
    compiled = torch.compile(lambda *a: ops.relu_relaxation(*a, backend="reference"), backend="eager", fullgraph=True)
    for found, wanted in zip(compiled(*arguments), ops.relu_relaxation(*arguments), strict=True):
        torch.testing.assert_close(found, wanted)
