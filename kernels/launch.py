"""What every launcher shares: the current device, the precision of products, strides as the kernels take them."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from glsk import precision as _precision
from glsk.precision import set_precision, using_precision

__all__ = ["member_stride", "on", "precision", "rows_contiguous", "set_precision", "using_precision"]


def precision() -> str:
    """How these kernels make products: they have none of FP16, the next accurate one serves."""
    chosen = _precision.precision()
    return "bf16x3" if chosen == "fp16" else chosen


def on(tensor: Tensor) -> AbstractContextManager[object]:
    """Launch on the tensor's device (and its current stream)."""
    return torch.cuda.device_of(tensor) if tensor.is_cuda else nullcontext()


def member_stride(tensor: Tensor) -> int:
    """0 where one set of values serves all members."""
    return 0 if tensor.shape[0] == 1 else tensor.stride(0)


def rows_contiguous(tensor: Tensor) -> Tensor:
    """The tensor if each member's values lie side by side in memory (members may be far apart), else a copy."""
    return tensor if tensor.shape[0] == 0 or tensor[0].is_contiguous() else tensor.contiguous()
