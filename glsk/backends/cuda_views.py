"""How tensors are told to the kernels of csrc/cuda: addresses, shapes and strides; and the memory they are given."""

import importlib
from typing import Any

import torch
from torch import Tensor

from glsk.precision import precision

_CUDA: Any = importlib.import_module("glsk._CUDA")

View = tuple[int, int, int]
"""Address, member stride and sample stride in elements; a stride of 0 repeats one slice."""

Around = tuple[int, int, int, int, int, int]
"""Addresses of lower and upper bounds, or of lines and 0; strides by member, sample, row and line, in elements."""

NULL: View = (0, 0, 0)
NO_LINES: Around = (0, 0, 0, 0, 0, 0)


def products() -> str:
    """How the deep kernel multiplies in the precision that is asked for."""
    return "fp16" if precision() == "fp16" else "bf16x3"


def where(tensor: Tensor) -> tuple[int, int]:
    """Device index and stream handle."""
    return tensor.get_device(), torch.cuda.current_stream(tensor.device).cuda_stream


class Views:
    """Turns tensors into views for the kernels, and keeps alive the copies it had to make."""

    def __init__(self) -> None:
        self.copies: list[Tensor] = []

    def __call__(self, tensor: Tensor | None) -> View:
        """[P or 1, B or 1, n], or None or an empty tensor for none."""
        if tensor is None or tensor.numel() == 0:
            return NULL
        if tensor.stride(2) != 1 and tensor.shape[2] > 1:
            tensor = self._copy(tensor)
        members, samples, _ = tensor.shape
        return tensor.data_ptr(), 0 if members == 1 else tensor.stride(0), 0 if samples == 1 else tensor.stride(1)

    def weights(self, tensor: Tensor | None) -> tuple[int, int]:
        """[P, ...] whose members are contiguous: address and member stride."""
        if tensor is None:
            return 0, 0
        if not tensor[0].is_contiguous():
            tensor = self._copy(tensor)
        return tensor.data_ptr(), 0 if tensor.shape[0] == 1 else tensor.stride(0)

    def around(self, lower: Tensor, upper: Tensor, lines: Tensor) -> Around:
        """Lines [P or 1, B or 1, R or 1, 4, n] if there are any, else bounds [P or 1, B or 1, n]; nothing if empty."""
        if lines.numel():
            if lines.stride(4) != 1 and lines.shape[4] > 1:
                lines = self._copy(lines)
            strides = [0 if n == 1 else stride for n, stride in zip(lines.shape, lines.stride(), strict=True)]
            return lines.data_ptr(), 0, strides[0], strides[1], strides[2], lines.stride(3)
        if not lower.numel():
            return NO_LINES
        low, high = self(lower), self(upper)
        if low[1:] != high[1:]:
            low, high = (self(self._copy(bound)) for bound in torch.broadcast_tensors(lower, upper))
        return low[0], high[0], low[1], low[2], 0, 0

    def _copy(self, tensor: Tensor) -> Tensor:
        self.copies.append(tensor.contiguous())
        return self.copies[-1]


def empty(like: Tensor, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
    """Device memory; running out of it says what to do."""
    try:
        return like.new_empty(shape, dtype=dtype)
    except torch.cuda.OutOfMemoryError as error:
        error.add_note(f"glsk: no room for {list(shape)} on {like.device}; give compute_bounds a smaller memory_limit")
        raise


class Allocator:
    """Gives a call its workspaces, and keeps them alive as long as it lives itself."""

    def __init__(self, like: Tensor) -> None:
        self.like, self.given = like, list[Tensor]()

    def __call__(self, size: int) -> int:
        self.given.append(empty(self.like, size, dtype=torch.uint8))
        return self.given[-1].data_ptr()


def arguments_of(
    view: Views,
    x_L: Tensor,
    x_U: Tensor,
    weights: list[Tensor],
    biases: "list[Tensor] | list[Tensor | None]",
    lowers: list[Tensor],
    uppers: list[Tensor],
    lines: list[Tensor],
    C: Tensor | None,
    known: tuple[Tensor | None, Tensor | None],
    geometry: list[int],
    leaks: list[float],
    rule: str,
    lower: Tensor,
    upper: Tensor,
    signs: int,
) -> Any:
    """A pass with these results as the kernels are told of it; what ``view`` copies must outlive the call."""
    members, samples, rows = lower.shape
    return _CUDA.Pass(
        members=members,
        samples=samples,
        rows=rows,
        signs=signs,
        rule=rule,
        products=products(),
        is_double=x_L.dtype == torch.float64,
        geometry=list(geometry),
        weights=[view.weights(weight) for weight in weights],
        biases=[view.weights(bias) for bias in biases],
        arounds=[view.around(*around) for around in zip(lowers, uppers, lines, strict=True)],
        leaks=list(leaks),
        x_lower=view(x_L),
        x_upper=view(x_U),
        C=NULL if C is None else view(C.transpose(0, 1)),  # rows in the place of members
        known_lower=NULL if None in known else view(known[0]),
        known_upper=NULL if None in known else view(known[1]),
        lower=lower.data_ptr(),
        upper=upper.data_ptr(),
    )
