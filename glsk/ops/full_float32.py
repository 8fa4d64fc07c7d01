"""Whole float32 products by PyTorch on a GPU, whose convolutions take TF32 unless told otherwise."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def full_float32(like: Tensor) -> Iterator[None]:
    """Within it PyTorch multiplies float32 tensors on ``like``'s device in float32."""
    if not like.is_cuda:
        yield
        return
    switches = _switches()
    before = [getattr(owner, name) for owner, name, _ in switches]
    try:
        for owner, name, value in switches:
            setattr(owner, name, value)
        yield
    finally:
        for (owner, name, _), value in zip(switches, before, strict=True):
            setattr(owner, name, value)


def _switches() -> list[tuple[object, str, object]]:
    """Where to set what. PyTorch 2.9 has new switches, and refuses the old ones once a new one is set."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    if hasattr(cudnn, "conv"):
        return [(cudnn.conv, "fp32_precision", "ieee"), (matmul, "fp32_precision", "ieee")]
    return [(cudnn, "allow_tf32", False), (matmul, "allow_tf32", False)]
