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
from torch.utils._pytree import tree_map_only

from glsk import backends
from glsk.ops import gradient
from glsk.ops.full_float32 import full_float32
from glsk.ops.nesting import tensors_of

Function = Callable[..., Any]


LIBRARY = torch.library.Library("glsk", "DEF")


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
        self._implementations: dict[str, Function] = {"reference": reference}
        self._backwards: dict[str, Function] = {}
        # Not torch.library.custom_op: its checks of every call cost more than a small kernel.
        LIBRARY.define(name + schema)
        LIBRARY.impl(name, self._dispatch, "CompositeExplicitAutograd")

        def checked_fake(*args: Any) -> Any:
            check(*args[:-1])
            return fake(*args[:-1])

        torch.library.register_fake(f"glsk::{name}", checked_fake, lib=LIBRARY)
        self._overload = getattr(torch.ops.glsk, name).default
        if differentiable:
            self._define_backward(schema)
        kernel = gradient.kernel(self._overload, self._backward if differentiable else None, saves_outputs)
        LIBRARY.impl(name, kernel, "Autograd", with_keyset=True)
        self.__doc__ = reference.__doc__

    def _define_backward(self, schema: str) -> None:
        """Fused gradients are an op of their own, ``<name>_backward``, so that compiled graphs can hold them."""
        name = f"{self.name}_backward"
        arguments = schema[: schema.rindex("str backend)")]
        LIBRARY.define(f"{name}{arguments}Tensor[] outputs, Tensor[] grads, bool[] needs, str backend) -> Tensor[]")

        def run(*args: Any) -> list[Tensor]:
            *operands, outputs, grads, needs, backend = args
            found = self._backwards[backend](operands, tuple(outputs), tuple(g.contiguous() for g in grads), needs)
            tensors = tensors_of(operands)
            return [
                (t.new_zeros(t.shape) if by is None else by.contiguous()) if need else t.new_empty(0)
                for t, by, need in zip(tensors, found, needs, strict=True)
            ]

        def fake(*args: Any) -> list[Tensor]:
            *operands, _, _, needs, _ = args
            tensors = tensors_of(operands)
            return [t.new_empty(t.shape if need else 0) for t, need in zip(tensors, needs, strict=True)]

        LIBRARY.impl(name, run, "CompositeExplicitAutograd")
        torch.library.register_fake(f"glsk::{name}", fake, lib=LIBRARY)

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
        * ``grads``: the tuple of the outputs' gradients, contiguous; of an op that saves its outputs, empty where
          nothing depends on one;
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
        # The strides that the fake promises.
        return tuple(t.contiguous() for t in result) if isinstance(result, tuple) else result.contiguous()

    def _backward(
        self,
        operands: list[Any],
        backend: str,
        outputs: tuple[Tensor, ...],
        grads: tuple[Tensor, ...],
        needs: list[bool],
    ) -> Sequence[Tensor | None]:
        backend = _resolve(backend, operands[0])
        with _as_written(operands[0]):
            if backend not in self._backwards:
                return self.reference_gradient(operands, grads, needs)
            fused = getattr(torch.ops.glsk, f"{self.name}_backward").default
            found = fused(*operands, list(outputs), list(grads), needs, backend)
            return [gradient if need else None for gradient, need in zip(found, needs, strict=True)]

    def reference_gradient(
        self, operands: list[Any], grads: tuple[Tensor, ...], needs: list[bool]
    ) -> list[Tensor | None]:
        """What :meth:`implement_backward` asks for, by autograd through the reference, which is run again."""
        wants = iter(needs)
        operands = tree_map_only(Tensor, lambda t: t.detach().requires_grad_(next(wants)), operands)
        with torch.enable_grad():
            outputs = self.reference(*operands)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        used = [(o, grad) for o, grad in zip(outputs, grads, strict=True) if o.requires_grad and o.shape == grad.shape]
        tensors = tensors_of(operands)
        found = iter(_gradients(used, [leaf for leaf in tensors if leaf.requires_grad]))
        return [next(found) if leaf.requires_grad else None for leaf in tensors]


def _resolve(backend: str, first: Tensor) -> str:
    return backends.resolve(backend, first.device, first.dtype)


@contextmanager
def _as_written(like: Tensor) -> Iterator[None]:
    """PyTorch multiplies within it in the dtype it is given: no autocast, no TF32."""
    kind = like.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        with torch.autocast(kind, enabled=False), full_float32(like):
            yield
    else:
        with full_float32(like):
            yield


def _gradients(used: list[tuple[Tensor, Tensor]], wanted: list[Tensor]) -> Sequence[Tensor | None]:
    if not used:
        return [None] * len(wanted)
    return torch.autograd.grad([out for out, _ in used], wanted, [grad for _, grad in used], allow_unused=True)
