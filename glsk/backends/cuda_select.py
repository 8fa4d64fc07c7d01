"""Which kernel serves a pass."""

from collections.abc import Sequence
from typing import Any

import torch

from glsk import backends
from glsk.backends.cuda_views import _CUDA
from glsk.geometry import Geometry
from glsk.precision import ACCURATE, precision

TRITON_FROM = 4_000_000
"""Multiply-adds of a pass for one (member, sample), one-sided, from which Triton's kernels, made for big layers, are
preferred to the general CUDA kernel."""


def variant_of(device: int, arguments: Any) -> str:
    """The kernel that serves a pass best in the precision that is asked for."""
    variant = str(_CUDA.select_pass(device, arguments))
    if variant == "deep" and precision() in ACCURATE:  # its products are coarser
        return "general"
    return variant


def for_triton(layers: Sequence[Geometry], rows: int, spec: bool, dtype: torch.dtype) -> bool:
    """Whether Triton is there and serves this pass, which no CUDA kernel is made for, better than the general one."""
    if backends.why_missing("triton") is not None or dtype != torch.float32:
        return False
    below = layers if spec else layers[:-1]  # the rows of an identity are the last layer's weights
    taps = sum(layer.out_features * layer.in_channels * layer.kernel_height * layer.kernel_width for layer in below)
    return rows * taps >= TRITON_FROM
