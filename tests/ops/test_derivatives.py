"""What gradients ops have and which they refuse: once, backwards, outside autocast, fused where a backend says so."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from glsk import ops
from glsk.ops import Op
from tests.ops.test_registry import DIFFERENTIABLE_OPS, OPS, as_tuple, leaves, sample, tensors, torch_op
from tests.support import CPU_BACKENDS


def with_leaf(op: Op) -> tuple[tuple[Any, ...], Tensor]:
    """Arguments of an op, and one tensor among them that wants a gradient."""
    arguments = sample(op, 0)
    return arguments, leaves(arguments)[0].requires_grad_()


def total(outputs: Any) -> Tensor:
    return sum(out.square().sum() for out in as_tuple(outputs) if out.numel())


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_autocast_changes_nothing(op: Op, backend: str, dtype: torch.dtype) -> None:
    arguments = tensors(sample(op, 0), lambda t: t.to(dtype))
    wanted = as_tuple(torch_op(op)(*arguments, backend))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = as_tuple(torch_op(op)(*arguments, backend))
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == dtype
        assert torch.equal(one, other)


@pytest.mark.parametrize("op", DIFFERENTIABLE_OPS)
@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_autocast_changes_no_gradient(op: Op, backend: str) -> None:
    gradients = []
    for enabled in (False, True):
        arguments, leaf = with_leaf(op)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            total(torch_op(op)(*arguments, backend)).backward()
        gradients.append(leaf.grad)
    assert torch.equal(*gradients)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_forward_mode_is_refused(op: Op, backend: str) -> None:
    arguments = sample(op, 0)
    first, *rest = arguments
    with pytest.raises(NotImplementedError, match=rf"glsk\.{op.name}: no forward-mode derivatives"):
        torch.func.jvp(lambda t: torch_op(op)(t, *rest, backend), (first,), (torch.ones_like(first),))
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(first, torch.ones_like(first))
        with pytest.raises(NotImplementedError, match="no forward-mode derivatives"):
            torch_op(op)(dual, *rest, backend)
        torch_op(op)(*arguments, backend)  # nothing here has a tangent


@pytest.mark.parametrize("op", DIFFERENTIABLE_OPS)
@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_a_second_derivative_is_refused(op: Op, backend: str) -> None:
    arguments, leaf = with_leaf(op)
    (plain,) = torch.autograd.grad(total(torch_op(op)(*arguments, backend)), leaf)
    (gradient,) = torch.autograd.grad(total(torch_op(op)(*arguments, backend)), leaf, create_graph=True)
    assert torch.equal(gradient, plain)
    with pytest.raises(NotImplementedError, match=rf"glsk\.{op.name}: its gradient cannot be differentiated again"):
        torch.autograd.grad(gradient.sum(), leaf)


@pytest.mark.parametrize("op", DIFFERENTIABLE_OPS)
@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_functional_gradients_work_once(op: Op, backend: str) -> None:
    arguments, leaf = with_leaf(op)
    (wanted,) = torch.autograd.grad(total(torch_op(op)(*arguments, backend)), leaf)
    first, *rest = sample(op, 0)

    def loss(tensor: Tensor) -> Tensor:
        return total(torch_op(op)(tensor, *rest, backend))

    assert torch.equal(torch.func.grad(loss)(first), wanted)
    with pytest.raises(NotImplementedError, match="cannot be differentiated again"):
        torch.func.grad(lambda t: torch.func.grad(loss)(t).sum())(first)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_an_optimised_result_has_no_gradient(backend: str) -> None:
    arguments, _ = with_leaf(ops.optimised_pass)
    found = total(torch_op(ops.optimised_pass)(*arguments, backend))
    with pytest.raises(NotImplementedError, match=r"glsk\.optimised_pass: its result is optimised and has no gradient"):
        found.backward()


@pytest.fixture
def fused() -> Iterator[Callable[[Op], list[Any]]]:
    """Registers a backward for the reference that records its calls and gives sevens."""
    registered: list[Op] = []

    def register(op: Op) -> list[Any]:
        calls: list[Any] = []
        registered.append(op)

        @op.implement_backward("reference")
        def backward(operands: list[Any], outputs: tuple[Tensor, ...], grads: tuple[Tensor, ...], needs: list[bool]):
            calls.append((operands, outputs, grads, needs))
            assert not torch.is_grad_enabled()
            there = leaves(operands)
            return [torch.full_like(t, 7.0) if needed else None for t, needed in zip(there, needs, strict=True)]

        return calls

    yield register
    for op in registered:
        del op._backwards["reference"]


@pytest.mark.parametrize("op", DIFFERENTIABLE_OPS)
def test_a_fused_backward_is_used(op: Op, fused: Callable[[Op], list[Any]]) -> None:
    calls = fused(op)
    assert op.has_backward("reference")
    arguments = sample(op, 0)
    wanted = [t for t in leaves(arguments) if t.numel()][::2]
    for tensor in wanted:
        tensor.requires_grad_()
    outputs = as_tuple(torch_op(op)(*arguments, "reference"))
    total(outputs).backward()
    ((operands, saved, grads, needs),) = calls
    assert len(operands) == len(arguments)
    assert [t.shape for t in leaves(operands)] == [t.shape for t in leaves(arguments)]
    assert not any(t.requires_grad for t in leaves(operands))
    assert needs == [t.requires_grad for t in leaves(arguments)]
    assert len(saved) == (3 if op is ops.chain_bounds else 0)
    assert len(grads) == len(outputs)
    assert all(grad.is_contiguous() and grad.shape == out.shape for grad, out in zip(grads, outputs, strict=True))
    assert all((t.grad == 7).all() for t in wanted)
    assert all(t.grad is None for t in leaves(arguments) if not t.requires_grad)


def test_kept_hidden_bounds_reach_the_fused_backward(fused: Callable[[Op], list[Any]]) -> None:
    calls = fused(ops.chain_bounds)
    *arguments, _ = sample(ops.chain_bounds, 0)
    arguments[2][0].requires_grad_()
    lower, _, hidden = torch_op(ops.chain_bounds)(*arguments, True, "reference")
    assert hidden.shape[2] == 2
    lower.sum().backward()
    assert torch.equal(calls[0][1][2], hidden)
    assert calls[0][2][2].count_nonzero() == 0
