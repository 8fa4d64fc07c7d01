"""What every launcher shares: the current device, the precision of products, strides as the kernels take them."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from glsk.kernels import config
from torch import Tensor

_precision = "tf32x3"


def precision() -> str:
    """How float32 products are made of tensor-core products; see :func:`set_precision`."""
    return _precision


def set_precision(name: str) -> None:
    """Choose how float32 products are made.

    Args:
        name: "tf32x3" (default: three TF32 products, float32 accuracy), "bf16x3" (three BF16 products, about 2^-16
            relative, faster), "tf32" (one product, about 2^-11) or "ieee" (no tensor cores).

    Raises:
        ValueError: unknown name.
    """
    global _precision
    if name not in config.PRECISIONS:
        raise ValueError(f"precision: unknown {name!r}; known: {', '.join(config.PRECISIONS)}")
    _precision = name


@contextmanager
def using_precision(name: str) -> Iterator[None]:
    """:func:`set_precision` for a ``with`` block."""
    before = _precision
    set_precision(name)
    try:
        yield
    finally:
        set_precision(before)


def on(tensor: Tensor) -> AbstractContextManager[object]:
    """Launch on the tensor's device (and its current stream)."""
    return torch.cuda.device_of(tensor) if tensor.is_cuda else nullcontext()


def member_stride(tensor: Tensor) -> int:
    """0 where one set of values serves all members."""
    return 0 if tensor.shape[0] == 1 else tensor.stride(0)


def rows_contiguous(tensor: Tensor) -> Tensor:
    """The tensor if each member's values lie side by side in memory (members may be far apart), else a copy."""
    return tensor if tensor.shape[0] == 0 or tensor[0].is_contiguous() else tensor.contiguous()
