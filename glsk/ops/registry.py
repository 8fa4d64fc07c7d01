"""One :class:`Op` a file of this package: its schema, its reference, and which backend serves which device.

The reference of an op is plain PyTorch: any device, float32 and float64, differentiable. A backend adds itself to an op
with :meth:`Op.implement`; an op that a backend leaves out runs by the reference on that backend's device. Every op is
``torch.ops.glsk.<name>``, with a fake implementation, and with a gradient: a fused one that a backend adds with
:meth:`Op.implement_backward`, else the reference's. Ops are differentiable once, backwards.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map_only, tree_unflatten

from glsk import backends
from glsk.ops.full_float32 import full_float32
from glsk.ops.once import once

Function = Callable[..., Any]


class _Library(torch.library.Library):
    """Refuses forward-mode derivatives in the autograd kernels that PyTorch makes, which would drop them silently."""

    def impl(self, op_name: Any, fn: Function, dispatch_key: str = "", **options: Any) -> Any:
        if dispatch_key == "Autograd":
            fn = _without_tangents(op_name, fn)
        return super().impl(op_name, fn, dispatch_key, **options)


LIBRARY = _Library("glsk", "DEF")


class Op:
    """A ``torch.library`` operator of the namespace ``glsk``; call it like a function, ``backend=`` last.

    Args:
        schema: signature in torch.library's schema language without the name; its last argument is ``str backend``.
        reference: the plain PyTorch implementation, taking every argument but ``backend``.
        fake: the same signature, returning empty outputs of the right shape, contiguous.
        check: the same signature, raising on arguments that do not fit together.
        saves_outputs: whether a fused backward is given the outputs.
        differentiable: False refuses gradients.
    """

    def __init__(
        self,
        name: str,
        schema: str,
        reference: Function,
        fake: Function,
        check: Function,
        *,
        saves_outputs: bool = False,
        differentiable: bool = True,
    ) -> None:
        self.name, self.reference, self.check = name, reference, check
        self._saves_outputs, self._differentiable = saves_outputs, differentiable
        self._implementations: dict[str, Function] = {"reference": reference}
        self._backwards: dict[str, Function] = {}
        # Not torch.library.custom_op: its checks of every call cost more than a small kernel.
        LIBRARY.define(name + schema)
        LIBRARY.impl(name, self._dispatch, "CompositeExplicitAutograd")

        def checked_fake(*args: Any) -> Any:
            check(*args[:-1])
            return fake(*args[:-1])

        torch.library.register_fake(f"glsk::{name}", checked_fake, lib=LIBRARY)
        torch.library.register_autograd(f"glsk::{name}", self._backward, setup_context=self._save, lib=LIBRARY)
        self._overload = getattr(torch.ops.glsk, name).default
        self.__doc__ = reference.__doc__

    def implement(self, backend: str) -> Callable[[Function], Function]:
        """Decorator: the function serves this op for ``backend``; same arguments as the reference."""

        def register(function: Function) -> Function:
            self._implementations[backend] = function
            return function

        return register

    def implement_backward(self, backend: str) -> Callable[[Function], Function]:
        """Decorator: the function is the gradient of this op's implementation for ``backend``.

        It is called as ``function(operands, outputs, grads, needs)``:

        * ``operands``: the list of the forward's arguments without ``backend``, tensors detached;
        * ``outputs``: the tuple of its outputs if the op saves them, else empty;
        * ``grads``: the tuple of the outputs' gradients, contiguous;
        * ``needs``: for every tensor among the operands, lists opened, in order: whether it wants a gradient.

        It returns a sequence as long as ``needs``: gradients, or None.
        """

        def register(function: Function) -> Function:
            self._backwards[backend] = function
            return function

        return register

    def implemented(self, backend: str) -> bool:
        """Whether a loaded backend has its own implementation, other than the reference."""
        return backend != "reference" and backend in self._implementations

    def has_backward(self, backend: str) -> bool:
        """Whether a loaded backend has its own gradient."""
        return backend in self._backwards

    def __call__(self, *args: Any, backend: str = "auto") -> Any:
        return self._overload(*args, backend)

    def _dispatch(self, *args: Any) -> Any:
        *operands, backend = args
        self.check(*operands)
        first = operands[0]  # every op's first argument is a tensor; the others are on its device
        implementation = self._implementations.get(_resolve(backend, first), self.reference)
        with _as_written(first):
            result = implementation(*operands)
        return tree_map_only(Tensor, Tensor.contiguous, result)  # the strides that the fake promises

    def _save(self, ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        leaves, ctx.spec = tree_flatten(list(inputs[:-1]))
        # (constant, None) or, for a tensor, (None, whether it wants a gradient)
        ctx.leaves = [(None, leaf.requires_grad) if isinstance(leaf, Tensor) else (leaf, None) for leaf in leaves]
        ctx.backend = inputs[-1]
        outputs = (output if isinstance(output, tuple) else (output,)) if self._saves_outputs else ()
        ctx.outputs = len(outputs)
        ctx.save_for_backward(*[leaf for leaf in leaves if isinstance(leaf, Tensor)], *outputs)

    def _backward(self, ctx: Any, *grads: Tensor) -> Any:
        if not self._differentiable:
            raise NotImplementedError(f"glsk.{self.name}: its result is optimised and has no gradient")
        split = len(ctx.saved_tensors) - ctx.outputs
        saved, outputs = ctx.saved_tensors[:split], ctx.saved_tensors[split:]
        unsaved = iter(saved)
        leaves = [next(unsaved) if kept is not None else leaf for leaf, kept in ctx.leaves]
        needs = [bool(kept) for _, kept in ctx.leaves if kept is not None]
        fused = self._backwards.get(_resolve(ctx.backend, saved[0]))
        with _as_written(saved[0]):
            if fused is None:
                found = self._reference_gradient(ctx, leaves, needs, grads)
            else:
                with torch.no_grad():
                    operands = tree_unflatten([t.detach() if isinstance(t, Tensor) else t for t in leaves], ctx.spec)
                    contiguous = tuple(grad.contiguous() for grad in grads)
                    found = fused(operands, tuple(t.detach() for t in outputs), contiguous, needs)
        if torch.is_grad_enabled():  # create_graph=True, or torch.func
            found = once(f"glsk.{self.name}", found, [*saved, *grads])
        gradients = iter(found)
        flat = [next(gradients) if isinstance(leaf, Tensor) else None for leaf in leaves]
        structured, operands = tree_unflatten(flat, ctx.spec), tree_unflatten(leaves, ctx.spec)
        # An empty list of tensors wants an empty list back.
        return *[g if _holds_tensors(o) or o == [] else None for o, g in zip(operands, structured, strict=True)], None

    def _reference_gradient(
        self, ctx: Any, leaves: list[Any], needs: list[bool], grads: tuple[Tensor, ...]
    ) -> list[Tensor | None]:
        """The reference, run again with gradients: a forward without a backward of its own stores nothing for it."""
        wants = iter(needs)
        leaves = [t.detach().requires_grad_(next(wants)) if isinstance(t, Tensor) else t for t in leaves]
        with torch.enable_grad():
            outputs = self.reference(*tree_unflatten(leaves, ctx.spec))
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        used = [(out, grad) for out, grad in zip(outputs, grads, strict=True) if out.requires_grad]
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        found = iter(_gradients(used, [leaf for leaf in tensors if leaf.requires_grad]))
        return [next(found) if leaf.requires_grad else None for leaf in tensors]


def _resolve(backend: str, first: Tensor) -> str:
    return backends.resolve(backend, first.device, first.dtype)


@contextmanager
def _as_written(like: Tensor) -> Iterator[None]:
    """PyTorch multiplies within it in the dtype it is given: no autocast, no TF32."""
    kind = like.device.type
    if torch.is_autocast_enabled(kind):
        with torch.autocast(kind, enabled=False), full_float32(like):
            yield
    else:
        with full_float32(like):
            yield


def _without_tangents(name: Any, kernel: Function) -> Function:
    def checked(keyset: Any, *args: Any, **options: Any) -> Any:
        if forward_ad._current_level >= 0 and any(
            isinstance(leaf, Tensor) and forward_ad.unpack_dual(leaf).tangent is not None for leaf in tree_leaves(args)
        ):
            raise NotImplementedError(f"glsk.{name}: no forward-mode derivatives; use reverse mode (backward, grad)")
        return kernel(keyset, *args, **options)

    return checked


def _gradients(used: list[tuple[Tensor, Tensor]], wanted: list[Tensor]) -> Sequence[Tensor | None]:
    if not used:
        return [None] * len(wanted)
    return torch.autograd.grad([out for out, _ in used], wanted, [grad for _, grad in used], allow_unused=True)


def _holds_tensors(operand: Any) -> bool:
    return any(isinstance(leaf, Tensor) for leaf in tree_leaves(operand))
