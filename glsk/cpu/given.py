"""What the kernels of csrc/cpu are given: descriptions of tensors by address and stride, and the tensors kept alive."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from glsk import _C
from glsk.geometry import Geometry, decode
from glsk.ops.chain_bounds import METHODS

RULES = ("adaptive", "parallel", "mask")

if tuple(_C.methods) != METHODS or tuple(_C.rules) != RULES:
    raise ImportError("glsk._C was built from other sources than this glsk; install glsk again")


def kernel(name: str, like: Tensor) -> Any:
    """The kernel of that name for a tensor's dtype."""
    return getattr(_C, f"{name}_{str(like.dtype).removeprefix('torch.')}")


def address(tensor: Tensor | None) -> int:
    """0 for none."""
    return 0 if tensor is None or tensor.numel() == 0 else tensor.data_ptr()


@dataclass
class Given:
    """Builds descriptions, and keeps the copies it had to make until the kernel is done."""

    kept: list[Tensor] = field(default_factory=list)

    def contiguous(self, tensor: Tensor | None) -> Tensor | None:
        """The tensor, or a copy without gaps."""
        if tensor is None or tensor.is_contiguous():
            return tensor
        self.kept.append(tensor.contiguous())
        return self.kept[-1]

    def members(self, tensor: Tensor) -> tuple[int, int]:
        """Address, and stride between members (0 if they share one), each of them without gaps."""
        if not tensor.is_contiguous() and not tensor[0].is_contiguous():
            tensor = tensor.contiguous()
            self.kept.append(tensor)
        return address(tensor), 0 if tensor.shape[0] == 1 else tensor.stride(0)

    def box(self, lower: Tensor, upper: Tensor) -> tuple[int, int, int]:
        """Both addresses and the stride between members."""
        (low, stride), (up, other) = self.members(lower), self.members(upper)
        if stride == other:
            return low, up, stride
        # One of them repeats a member; neither may.
        whole = [t.clone(memory_format=torch.contiguous_format) for t in torch.broadcast_tensors(lower, upper)]
        self.kept += whole
        return address(whole[0]), address(whole[1]), whole[0].stride(0)

    def layers(
        self, geometry: Sequence[Geometry], weights: Sequence[Tensor], biases: Sequence[Tensor], leaks: Sequence[float]
    ) -> list[Any]:
        """Layers with their members' weights."""
        return [
            _C.Layer(list(layer), leak, *self.members(weight), *self.members(bias))
            for layer, weight, bias, leak in zip(geometry, weights, biases, leaks, strict=True)
        ]

    def inner(
        self, layers: Sequence[Geometry], lowers: Sequence[Tensor], uppers: Sequence[Tensor], lines: Sequence[Tensor]
    ) -> list[tuple[int, ...]]:
        """What stands for the activations of the layers below the last."""
        return [
            self._lines(given)
            if given.numel()
            else (address(self.contiguous(lower)), address(self.contiguous(upper)), 0, 0, 0, 0)
            if layer.relu
            else (0,) * 6
            for layer, lower, upper, given in zip(layers[:-1], lowers, uppers, lines, strict=True)
        ]

    def _lines(self, lines: Tensor) -> tuple[int, ...]:
        if lines.stride(4) != 1 or lines.stride(3) != lines.shape[4]:
            lines = lines.contiguous()
            self.kept.append(lines)
        strides = [0 if lines.shape[i] == 1 else lines.stride(i) for i in range(3)]
        return 0, 0, address(lines), *strides


def pass_given(
    given: Given,
    x_L: Tensor,
    x_U: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    lowers: list[Tensor],
    uppers: list[Tensor],
    lines: list[Tensor],
    C: Tensor | None,
    known: tuple[Tensor | None, Tensor | None],
    geometry: list[int],
    leaks: list[float],
    rule: str,
    outputs: tuple[Tensor | None, Tensor | None],
) -> Any:
    """A pass; ``outputs`` are where its bounds go, [P, B, rows] each, if it is to be run."""
    layers = decode(geometry)
    x_lower, x_upper, box_stride = given.box(x_L, x_U)
    return _C.Pass(
        members=weights[0].shape[0],
        samples=x_L.shape[1],
        layers=given.layers(layers, weights, biases, leaks),
        inner=given.inner(layers, lowers, uppers, lines),
        rule=RULES.index(rule),
        x_lower=x_lower,
        x_upper=x_upper,
        box_stride=box_stride,
        C=address(given.contiguous(C)),
        rows=layers[-1].out_features if C is None else C.shape[1],
        known_lower=address(given.contiguous(known[0])),
        known_upper=address(given.contiguous(known[1])),
        lower=address(outputs[0]),
        upper=address(outputs[1]),
        threads=torch.get_num_threads(),
    )


def chain_given(
    given: Given,
    x_L: Tensor,
    x_U: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    C: Tensor | None,
    geometry: list[int],
    leaks: list[float],
    method: str,
    prune: bool,
    outputs: tuple[Tensor | None, Tensor | None, Tensor | None],
) -> Any:
    """A whole chain; ``outputs``: lower, upper, and the hidden bounds, which a gradient reads."""
    layers = decode(geometry)
    return _C.Chain(
        members=weights[0].shape[0],
        samples=x_L.shape[1],
        layers=given.layers(layers, weights, biases, leaks),
        x_lower=address(given.contiguous(x_L)),
        x_upper=address(given.contiguous(x_U)),
        C=address(given.contiguous(C)),
        rows=layers[-1].out_features if C is None else C.shape[1],
        method=METHODS.index(method),
        prune=prune,
        lower=address(outputs[0]),
        upper=address(outputs[1]),
        hidden=address(outputs[2]),
        threads=torch.get_num_threads(),
    )


def ibp_given(
    given: Given,
    lower: Tensor,
    upper: Tensor,
    weight: Tensor,
    bias: Tensor,
    geometry: list[int],
    relu: bool,
    leak: float,
    outputs: tuple[Tensor | None, Tensor | None],
) -> Any:
    """An interval step."""
    in_lower, in_upper, in_stride = given.box(lower, upper)
    return _C.Ibp(
        members=weight.shape[0],
        samples=lower.shape[1],
        layers=given.layers(decode(geometry), [weight], [bias], [0.0]),
        in_lower=in_lower,
        in_upper=in_upper,
        in_stride=in_stride,
        relu=relu,
        in_leak=leak,
        lower=address(outputs[0]),
        upper=address(outputs[1]),
        threads=torch.get_num_threads(),
    )
