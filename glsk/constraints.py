"""What a caller says of hidden units (``intermediate``, ``lines``, ``splits``), read by the names of affine layers."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from glsk.arguments import dense, describe, listed
from glsk.bounds import Constraints
from glsk.network import Chain

MODES = ("intersect", "replace")

_INTEGERS = (torch.int8, torch.int16, torch.int32, torch.int64)


def resolve(
    chain: Chain,
    intermediate: Mapping[str, tuple[Tensor, Tensor]] | None,
    intermediate_mode: str,
    lines: Mapping[str, Tensor] | None,
    splits: Mapping[str, Tensor] | None,
    like: Tensor,
    members: int,
    rows: int,
    check_finite: bool,
) -> Constraints | None:
    """The constraints by number of layer, None without any. ``like`` is the box's lower end [B, n]; ``rows``: of C.

    Raises:
        TypeError, ValueError: naming the argument and the layer.
    """
    if intermediate_mode not in MODES:
        raise ValueError(f"intermediate_mode: expected 'intersect' or 'replace', got {describe(intermediate_mode)}")
    if intermediate is None and lines is None and splits is None:
        return None
    reader = _Reader(chain, like, members, rows, check_finite)
    return Constraints(
        {k: reader.bounds(name, k, value) for name, k, value in reader.entries("intermediate", intermediate)},
        intermediate_mode == "replace",
        {k: reader.lines(name, k, value) for name, k, value in reader.entries("lines", lines)},
        {k: reader.split(name, k, value) for name, k, value in reader.entries("splits", splits)},
    )


class _Reader:
    def __init__(self, chain: Chain, like: Tensor, members: int, rows: int, check_finite: bool) -> None:
        self.chain, self.like, self.members, self.rows, self.check = chain, like, members, rows, check_finite
        self.samples = like.shape[0]

    def entries(self, argument: str, given: Any) -> list[tuple[str, int, Any]]:
        """(what it is called, number of the layer, value) of every entry."""
        if given is None:
            return []
        if not isinstance(given, Mapping):
            raise TypeError(f"{argument}: expected a dict from names of layers, got {type(given).__name__}")
        numbers = {layer.name: k for k, layer in enumerate(self.chain.layers) if layer.geometry.relu}
        if unknown := [name for name in given if name not in numbers]:
            raise ValueError(
                f"{argument}: {listed(unknown)} name no affine layer that an activation follows; those are "
                f"{listed(numbers, 10)}"
            )
        return [(f"{argument}[{name!r}]", numbers[name], value) for name, value in given.items()]

    def bounds(self, name: str, k: int, given: Any) -> tuple[Tensor, Tensor]:
        if not isinstance(given, tuple | list) or len(given) != 2:
            raise TypeError(f"{name}: expected (lower, upper), got {describe(given)}")
        lower, upper = (self._values(name, k, end) for end in given)
        if self.check and not (lower <= upper).all():
            raise ValueError(f"{name}: lower > upper, or NaN, somewhere")
        return lower, upper

    def _values(self, name: str, k: int, given: Any) -> Tensor:
        """[P, B, n], or [B, n] for all members."""
        tensor = self._like_the_box(name, given)
        units = self.chain.layers[k].geometry.out_features
        if tensor.dim() == 2:
            tensor = tensor[None]
        if tuple(tensor.shape) not in ((self.members, self.samples, units), (1, self.samples, units)):
            raise ValueError(
                f"{name}: expected [{self.members}, {self.samples}, {units}] or [{self.samples}, {units}], got "
                f"{list(given.shape)}"
            )
        return tensor

    def lines(self, name: str, k: int, given: Any) -> Tensor:
        tensor = self._like_the_box(name, given)
        units = self.chain.layers[k].geometry.out_features
        sizes = ((1, self.members), (1, self.samples), (1, self.rows), (4,), (units,))
        if tensor.dim() != 5 or any(n not in fitting for n, fitting in zip(tensor.shape, sizes, strict=True)):
            raise ValueError(
                f"{name}: expected [{self.members} or 1, {self.samples} or 1, {self.rows} or 1, 4, {units}], got "
                f"{list(given.shape)}"
            )
        if self.check and not tensor.isfinite().all():
            raise ValueError(f"{name}: holds NaN or infinity")
        return tensor

    def split(self, name: str, k: int, given: Any) -> Tensor:
        tensor = dense(name, given, _INTEGERS, "an integer tensor")
        units = self.chain.layers[k].geometry.out_features
        if tuple(tensor.shape) != (self.samples, units):
            raise ValueError(f"{name}: expected [{self.samples}, {units}], got {list(tensor.shape)}")
        if tensor.device != self.like.device:
            raise ValueError(f"{name} is on {tensor.device}, the input on {self.like.device}; make them agree")
        if self.check and not ((tensor >= -1) & (tensor <= 1)).all():
            raise ValueError(f"{name}: every value must be -1 (inactive), 0 (free) or 1 (active)")
        return tensor[None]

    def _like_the_box(self, name: str, given: Any) -> Tensor:
        tensor = dense(name, given, None, "")
        if tensor.dtype != self.like.dtype or tensor.device != self.like.device:
            raise ValueError(
                f"{name} is {tensor.dtype} on {tensor.device}, the input is {self.like.dtype} on {self.like.device}; "
                "make them agree"
            )
        return tensor
