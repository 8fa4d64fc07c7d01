"""One :class:`Op` a file of this package: its schema, its reference, and which backend serves which device.

The reference of an op is plain PyTorch: any device, float32 and float64, differentiable. A backend adds itself to an op
with :meth:`Op.implement`; an op that a backend leaves out runs by the reference on that backend's device. Every op is
``torch.ops.glsk.<name>``, with a fake implementation, and with a gradient that is the reference's.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map_only, tree_unflatten

from glsk import backends
from glsk.ops.full_float32 import full_float32

Function = Callable[..., Any]

LIBRARY = torch.library.Library("glsk", "DEF")


class Op:
    """A ``torch.library`` operator of the namespace ``glsk``; call it like a function, ``backend=`` last.

    Args:
        schema: signature in torch.library's schema language without the name; its last argument is ``str backend``.
        reference: the plain PyTorch implementation, taking every argument but ``backend``.
        fake: the same signature, returning empty outputs of the right shape, contiguous.
    """

    def __init__(self, name: str, schema: str, reference: Function, fake: Function) -> None:
        self.name, self.reference = name, reference
        self._implementations: dict[str, Function] = {"reference": reference}
        # Not torch.library.custom_op: its checks of every call cost more than a small kernel.
        LIBRARY.define(name + schema)
        LIBRARY.impl(name, self._dispatch, "CompositeExplicitAutograd")
        torch.library.register_fake(f"glsk::{name}", lambda *args: fake(*args[:-1]), lib=LIBRARY)
        torch.library.register_autograd(f"glsk::{name}", self._backward, setup_context=_save, lib=LIBRARY)
        self._overload = getattr(torch.ops.glsk, name).default
        self.__doc__ = reference.__doc__

    def implement(self, backend: str) -> Callable[[Function], Function]:
        """Decorator: the function serves this op for ``backend``; same arguments as the reference."""

        def register(function: Function) -> Function:
            self._implementations[backend] = function
            return function

        return register

    def implemented(self, backend: str) -> bool:
        """Whether a loaded backend has its own implementation, other than the reference."""
        return backend != "reference" and backend in self._implementations

    def __call__(self, *args: Any, backend: str = "auto") -> Any:
        return self._overload(*args, backend)

    def _dispatch(self, *args: Any) -> Any:
        *operands, backend = args
        first = operands[0]  # every op's first argument is a tensor; the others are on its device
        chosen = backends.resolve(backend, first.device, first.dtype)
        implementation = self._implementations.get(chosen, self.reference)
        with full_float32(first):  # for the reference
            result = implementation(*operands)
        return tree_map_only(Tensor, Tensor.contiguous, result)  # the strides that the fake promises

    def _backward(self, ctx: Any, *grads: Tensor) -> Any:
        """The reference, run again with gradients: the fused forward stores nothing for it."""
        saved = iter(ctx.saved_tensors)
        leaves = [next(saved).detach().requires_grad_(kept) if kept is not None else leaf for leaf, kept in ctx.leaves]
        operands = tree_unflatten(leaves, ctx.spec)
        with torch.enable_grad():
            outputs = self.reference(*operands)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        used = [(out, grad) for out, grad in zip(outputs, grads, strict=True) if out.requires_grad]
        wanted = [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.requires_grad]
        found = iter(_gradients(used, wanted))
        flat = [next(found) if isinstance(leaf, Tensor) and leaf.requires_grad else None for leaf in leaves]
        structured = tree_unflatten(flat, ctx.spec)
        # An empty list of tensors wants an empty list back.
        return *[g if _holds_tensors(o) or o == [] else None for o, g in zip(operands, structured, strict=True)], None


def _gradients(used: list[tuple[Tensor, Tensor]], wanted: list[Tensor]) -> Sequence[Tensor | None]:
    if not used:
        return [None] * len(wanted)
    return torch.autograd.grad([out for out, _ in used], wanted, [grad for _, grad in used], allow_unused=True)


def _holds_tensors(operand: Any) -> bool:
    return any(isinstance(leaf, Tensor) for leaf in tree_leaves(operand))


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    leaves, ctx.spec = tree_flatten(list(inputs[:-1]))
    # (constant, None) or, for a tensor, (None, whether it wants a gradient)
    ctx.leaves = [(None, leaf.requires_grad) if isinstance(leaf, Tensor) else (leaf, None) for leaf in leaves]
    ctx.save_for_backward(*[leaf for leaf in leaves if isinstance(leaf, Tensor)])
