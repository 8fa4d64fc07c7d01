"""Waits for a GPU, found without one: tensors of another device stand for its own, and every op passes by here."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from glsk import ops

aten = torch.ops.aten

READS = {
    aten._local_scalar_dense,
    aten.item,
    aten.allclose,
    aten.argwhere,
    aten.is_nonzero,
    aten.equal,
    aten.nonzero,
    aten.nonzero_numpy,
    aten.masked_select,
    aten._unique,
    aten._unique2,
    aten.unique_consecutive,
    aten.bincount,
    aten.repeat_interleave,
}
"""What tells the host a value, or needs one for the shape of its result."""

INDEXED = {aten.index, aten.index_put, aten.index_put_}


class WaitError(AssertionError):
    """The host would wait for the device."""


@contextmanager
def no_waits(device: str = "meta") -> Iterator[None]:
    """:class:`WaitError` wherever the host would wait for the device, if that were a GPU.

    "meta" has no values, and what is on the CPU is on the host; with "cpu" everything is on the device.
    """
    with _Functions(device), _Ops(device):
        yield


@contextmanager
def no_synchronisation() -> Iterator[None]:
    """On a GPU: an error where the host waits for it, as PyTorch notices; whatever happens, none afterwards."""
    try:
        _synchronisation("error")
        yield
    finally:
        _synchronisation("default")


def _synchronisation(mode: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says once, after it has set the mode, that this is a prototype
        torch.cuda.set_sync_debug_mode(mode)


class _Functions(TorchFunctionMode):
    """What is decided above the ops: numbers of the host that become tensors of the device, by a copy."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        device = torch.device(kwargs.get("device") or "cpu")
        if func in (torch.tensor, torch.as_tensor) and device.type == self.device and not isinstance(args[0], Tensor):
            raise WaitError(f"{func.__name__} copies {args[0]!r} to the device")
        if func in (torch.where, Tensor.where) and not all(isinstance(arg, Tensor) for arg in args):
            raise WaitError("where copies a number to the device")
        return func(*args, **kwargs)


class _Ops(TorchDispatchMode):
    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device
        self.pinned: list[Tensor] = []  # host memory that a device copies by itself

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = dict(kwargs or {})
        op = func.overloadpacket
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        here = [tensor for tensor in tensors if self._here(tensor)]
        if func.namespace == "glsk" and not any(tensor.is_meta for tensor in tensors):
            with self:  # what a backend does within the op
                return getattr(ops, op.__name__)._dispatch(*args)
        if op is aten.is_pinned:
            return self._is_pinned(args[0])
        if op is aten._pin_memory:
            return self._pin(args[0].clone())
        if kwargs.pop("pin_memory", False):
            return self._pin(func(*args, **kwargs))
        if op is aten._to_copy:
            to = torch.device(kwargs.get("device") or args[0].device)
            self._check_copy(args[0], self._here(args[0]), to.type == self.device, bool(kwargs.get("non_blocking")))
        elif op is aten.copy_:
            to, source, *rest = args
            queued = bool(kwargs.get("non_blocking", rest == [True]))
            inward = self._here(to)
            if self._check_copy(source if inward else to, self._here(source), inward, queued):
                return to.zero_()  # a meta tensor has no values to copy
        elif here:
            self._check(func, op, args, [tensor for tensor in tensors if not self._here(tensor)])
        return func(*args, **kwargs)

    def _here(self, tensor: Tensor) -> bool:
        return tensor.device.type == self.device

    def _check(self, func: Any, op: Any, args: tuple, hosts: list[Tensor]) -> None:
        if op in READS:
            raise WaitError(f"{func} reads a value of the device")
        indices = [index for index in args[1] if index is not None] if op in INDEXED else []
        if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
            raise WaitError(f"{func} counts a mask")
        # A kernel takes one number of the host as an argument; where and an index are copied.
        if any(host.dim() or op in (aten.where, *INDEXED) for host in hosts):
            raise WaitError(f"{func} copies an operand to the device")

    def _check_copy(self, host: Tensor, from_device: bool, to_device: bool, queued: bool) -> bool:
        """Whether it is a copy from the device to the host, and one that need not be waited for."""
        if from_device == to_device:
            return False
        if not queued or not self._is_pinned(host):
            raise WaitError("a copy between host and device that the host waits for")
        return from_device

    def _pin(self, tensor: Tensor) -> Tensor:
        self.pinned.append(tensor)
        return tensor

    def _is_pinned(self, tensor: Tensor) -> bool:
        memory = tensor.untyped_storage().data_ptr()
        return any(memory == one.untyped_storage().data_ptr() for one in self.pinned)
