"""A digest of named tensors."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def digest(tensors: Mapping[str, Tensor], text: str) -> str:
    """SHA-256 of ``text`` and of every tensor's name, dtype, shape and bytes, as hexadecimal digits.

    Args:
        tensors: on the CPU, of any dtype; their order does not matter.
        text: what else is vouched for.
    """
    found = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        value = tensors[name]
        found.update(f"\n{name} {value.dtype} {list(value.shape)}\n".encode())
        found.update(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
