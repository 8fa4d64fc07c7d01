"""Gradients that can be used but not differentiated again."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class _Once(torch.autograd.Function):
    """The first ``count`` tensors, which depend on all the others."""

    @staticmethod
    def forward(what: str, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(tensor.view_as(tensor) for tensor in tensors[:count])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.what = inputs[0]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise NotImplementedError(f"{ctx.what}: its gradient cannot be differentiated again (no second order)")


def once(what: str, gradients: Sequence[Tensor | None], sources: Sequence[Tensor]) -> list[Tensor | None]:
    """The gradients (None left out) as functions of ``sources`` whose own gradient raises NotImplementedError."""
    there = [gradient.detach() for gradient in gradients if gradient is not None]
    if not there or not any(source.requires_grad for source in sources):
        return list(gradients)
    found = iter(_Once.apply(what, len(there), *there, *sources))  # type: ignore[no-untyped-call]
    return [None if gradient is None else next(found) for gradient in gradients]
