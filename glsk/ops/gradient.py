"""The autograd kernel of an op: gradients once and backwards, under ``torch.func`` too; all else is refused.

``torch.library.register_autograd`` would do for plain backwards, but does not run under ``torch.func.grad``, drops the
tangents of forward-mode derivatives and detaches gradients that are differentiated again.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._functorch.autograd_function import enable_single_level_autograd_function
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch.autograd import forward_ad
from torch.autograd.function import _SingleLevelFunction

from glsk import workspace
from glsk.ops.nesting import Nesting, split

Backward = Callable[[list[Any], str, tuple[Tensor, ...], tuple[Tensor, ...], list[bool]], Sequence[Tensor | None]]
"""(operands, backend, outputs saved, their gradients, which tensors want one) -> a gradient for every tensor."""


def kernel(overload: Any, backward: Backward | None, saves_outputs: bool) -> Callable[..., Any]:
    """The kernel of ``overload`` for PyTorch's dispatch key Autograd; without ``backward``, gradients are refused."""
    name = f"glsk.{overload._opname}"

    def below(keyset: Any, args: Sequence[Any]) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return overload.redispatch(keyset & torch._C._after_autograd_keyset, *args)

    def autograd(keyset: Any, *args: Any) -> Any:
        tensors, nesting = split(args)
        if forward_ad._current_level >= 0 and any(forward_ad.unpack_dual(t).tangent is not None for t in tensors):
            raise NotImplementedError(f"{name}: no forward-mode derivatives; use reverse mode (backward, grad)")
        if not torch.is_grad_enabled() or not any(t.requires_grad for t in tensors):
            return below(keyset, args)
        call = _Call(name, lambda all_args: below(keyset, all_args), backward, saves_outputs, nesting)
        if not torch._C._are_functorch_transforms_active():
            return _Gradient.apply(call, *tensors)  # type: ignore[attr-defined]
        with enable_single_level_autograd_function():
            return _Gradient.apply(call, *tensors)  # type: ignore[attr-defined]

    return autograd


class _Call:
    """One call of an op: how it runs, and how its arguments nest."""

    def __init__(
        self, name: str, run: Callable[..., Any], backward: Backward | None, saves_outputs: bool, nesting: Nesting
    ) -> None:
        self.name, self.run, self.backward = name, run, backward
        self.saves_outputs, self.nesting = saves_outputs, nesting


class _Gradient(_SingleLevelFunction):
    """Of one level of ``torch.func``, as PyTorch's own autograd kernels are: they meet one at a time."""

    @staticmethod
    def forward(ctx: Any, call: _Call, *tensors: Tensor) -> Any:
        result = call.run(call.nesting.join(tensors))
        ctx.set_materialize_grads(False)
        ctx.call, ctx.granted = call, workspace.granted()
        ctx.shapes = [tensor.shape for tensor in (result if isinstance(result, tuple) else (result,))]
        saved = (result if isinstance(result, tuple) else (result,)) if call.saves_outputs else ()
        ctx.outputs = len(saved)
        ctx.save_for_backward(*tensors, *saved)
        return result

    @staticmethod
    def backward(ctx: Any, *maybe: Tensor | None) -> Any:
        call: _Call = ctx.call
        if call.backward is None:
            raise NotImplementedError(f"{call.name}: its result is optimised and has no gradient")
        kept = ctx.saved_tensors  # asked for once: what a checkpoint computes again is given out once
        split = len(kept) - ctx.outputs
        saved, outputs = kept[:split], kept[split:]
        # An op that saves its outputs, which may be large, is told by an empty tensor that nothing depends on one.
        like, unread = saved[0], [0] if call.saves_outputs else None
        grads = [
            like.new_zeros(unread or shape) if grad is None else grad
            for grad, shape in zip(maybe, ctx.shapes, strict=True)
        ]
        with _plain(), workspace.grant(ctx.granted):
            *operands, backend = call.nesting.join(_unwrapped(saved))
            wanted = list(ctx.needs_input_grad[1:])
            found = call.backward(operands, backend, _unwrapped(outputs), _unwrapped(grads), wanted)
        if torch.is_grad_enabled():  # create_graph=True, or torch.func
            found = _once(call.name, found, [*saved, *grads])
        return None, *found


@contextmanager
def _plain() -> Iterator[None]:
    """No graph is recorded and no ``torch.func`` transform is at work within it."""
    with torch.no_grad():
        if torch._C._are_functorch_transforms_active():
            with temporarily_clear_interpreter_stack():
                yield
        else:
            yield


def _unwrapped(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The tensors' values, outside ``torch.func`` and any graph."""
    found = []
    for tensor in tensors:
        while torch._C._functorch.is_gradtrackingtensor(tensor):
            tensor = torch._C._functorch.get_unwrapped(tensor)
        found.append(tensor.detach())
    return tuple(found)


class _Once(torch.autograd.Function):
    """The first ``count`` tensors, as functions of all the others."""

    @staticmethod
    def forward(name: str, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(tensor.view_as(tensor) for tensor in tensors[:count])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.name = inputs[0]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise NotImplementedError(f"{ctx.name}: its gradient cannot be differentiated again (no second order)")


def _once(name: str, gradients: Sequence[Tensor | None], sources: Sequence[Tensor]) -> list[Tensor | None]:
    """The gradients, None left out, as functions of ``sources`` whose own gradient is refused."""
    there = [gradient for gradient in gradients if gradient is not None]
    if not there or not any(source.requires_grad for source in sources):
        return list(gradients)
    found = iter(_Once.apply(name, len(there), *there, *sources))
    return [None if gradient is None else next(found) for gradient in gradients]
