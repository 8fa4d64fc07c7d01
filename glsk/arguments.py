"""Readers of arguments: each returns the plain value, or raises one short error that names the argument."""

import math
import numbers
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

FLOATS = (torch.float32, torch.float64)

_LONGEST = 60


def is_lazy(value: object) -> bool:
    """Whether a tensor is one of a lazy module that has not been called yet (PyTorch's own test cannot be compiled)."""
    return isinstance(value, UninitializedParameter | UninitializedBuffer)


def describe(value: object) -> str:
    """A value in a few words: never a whole tensor, never more than one line."""
    if isinstance(value, Tensor):
        return "a tensor" if is_lazy(value) else f"a tensor {list(value.shape)} of {value.dtype}"
    if isinstance(value, numbers.Number | str | bytes | type(None)):
        return _short(repr(value))
    if isinstance(value, tuple | list) and len(value) <= 4:
        inner = ", ".join(describe(v) for v in value)
        return f"({inner})" if len(inner) <= 2 * _LONGEST else f"{type(value).__name__} of length {len(value)}"
    return f"{type(value).__name__} of length {len(value)}" if isinstance(value, tuple | list) else type(value).__name__


def listed(names: Iterable[object], most: int = 3) -> str:
    """The first few names, and how many there are beyond them."""
    names = list(names)
    shown = ", ".join(_short(repr(name)) for name in names[:most])
    return f"[{shown}]" if len(names) <= most else f"[{shown}, and {len(names) - most} more]"


def printable(text: object, most: int = 200) -> str:
    """What a file says, fit for one line of a message: escaped, and cut where it is long."""
    shown = str(text)[: most + 1]
    shown = shown if shown.isprintable() else shown.encode("unicode_escape").decode()
    return shown if len(shown) <= most else f"{shown[:most]}..."


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def flag(name: str, value: object) -> bool:
    """A bool of Python or NumPy. Raises TypeError: 0, 1 and "no" are not accepted."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name}: expected True or False, got {describe(value)}")
    return bool(value)


def is_number(value: object) -> bool:
    """Whether this is a real number of Python or NumPy; a bool is not."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def number(name: str, value: object) -> float:
    """A finite real number. Raises TypeError or ValueError."""
    if not is_number(value):
        raise TypeError(f"{name}: expected a number, got {describe(value)}")
    try:
        found = float(value)  # type: ignore[arg-type]
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise ValueError(f"{name}: must be finite, got {describe(value)}")
    return found


def whole_number(name: str, value: object, least: int, what: str = "whole number") -> int:
    """A whole number of at least ``least``. Raises TypeError or ValueError."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name}: expected a {what}, got {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name}: expected at least {least}, got {describe(value)}")
    return int(value)


def dense(name: str, value: object, dtypes: tuple[torch.dtype, ...] | None, wanted: str) -> Tensor:
    """A tensor that holds its values one by one, of one of the dtypes (None: of any). Raises TypeError."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(value).__name__}")
    if is_lazy(value):
        raise TypeError(f"{name}: the tensor is not initialised yet")
    if is_mapped(value):
        raise TypeError(f"{name}: a tensor under torch.func.vmap; members are an axis of params, samples one of x")
    if value.is_nested or value.layout is not torch.strided:
        raise TypeError(f"{name}: expected a dense tensor, got {'nested' if value.is_nested else value.layout}")
    if value.is_quantized or (dtypes is not None and value.dtype not in dtypes):
        raise TypeError(f"{name}: expected {wanted}, got {value.dtype}")
    return value


def is_mapped(tensor: Tensor) -> bool:
    """Whether ``torch.func.vmap`` runs over the tensor, in whatever order with ``torch.func.grad``."""
    if torch.compiler.is_compiling():
        return False
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        if torch._C._functorch.is_batchedtensor(tensor):
            return True
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return False


def with_values(
    name: str, value: object, dtypes: tuple[torch.dtype, ...] = FLOATS, wanted: str = "", read: bool = True
) -> Tensor:
    """:func:`dense`, and not on the meta device, unless no value is ``read``. Raises TypeError or ValueError."""
    found = dense(name, value, dtypes, wanted or "float32 or float64")
    if read and found.device.type == "meta":
        raise ValueError(f"{name}: a tensor on the meta device holds no values")
    return found


def all_finite(tensor: Tensor) -> bool:
    """Whether a tensor, which is not empty, holds neither NaN nor infinity; without a copy."""
    if math.isfinite(tensor.detach().sum().item()):  # with either of them no sum is
        return True
    low, high = tensor.aminmax()
    return bool((low > -math.inf) & (high < math.inf))
