"""The ``cpu`` backend: launchers that hand the compiled kernels (csrc/cpu) addresses, shapes and strides."""

from typing import Any

import torch
from torch import Tensor

from glsk import _C, ops
from glsk.geometry import decode
from glsk.ops.chain_bounds import METHODS
from glsk.ops.crown_pass import empty_bounds


def _threads() -> int:
    return torch.get_num_threads()


def _kernel(name: str, like: Tensor) -> Any:
    return getattr(_C, f"{name}_{str(like.dtype).removeprefix('torch.')}")


def _members(tensor: Tensor) -> tuple[Tensor, int]:
    """The tensor with every member contiguous, and the stride between members (0 if they share one)."""
    if not tensor[0].is_contiguous():
        tensor = tensor.contiguous()
    return tensor, 0 if tensor.shape[0] == 1 else tensor.stride(0)


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None or tensor.numel() == 0 else tensor.data_ptr()


@ops.ibp_affine.implement("cpu")
def ibp_affine(
    lower: Tensor, upper: Tensor, weight: Tensor, bias: Tensor, geometry: list[int], relu: bool
) -> tuple[Tensor, Tensor]:
    members, samples = weight.shape[0], lower.shape[1]
    (layer,) = decode(geometry)
    out_lower = lower.new_empty(members, samples, layer.out_features)
    out_upper = torch.empty_like(out_lower)
    (weight, weight_stride), (bias, bias_stride) = _members(weight), _members(bias)
    lower, upper, box_stride = _box(lower, upper)
    _kernel("ibp", lower)(
        members,
        samples,
        list(layer),
        _address(weight),
        weight_stride,
        _address(bias),
        bias_stride,
        _address(lower),
        _address(upper),
        box_stride,
        relu,
        _address(out_lower),
        _address(out_upper),
        _threads(),
    )
    return out_lower, out_upper


def _box(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor, int]:
    (lower, stride), (upper, other) = _members(lower), _members(upper)
    if stride != other:
        lower, upper = lower.contiguous(), upper.contiguous()
        stride = lower.stride(0)
    return lower, upper, stride


@ops.crown_pass.implement("cpu")
def crown_pass(
    x_L: Tensor,
    x_U: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    lowers: list[Tensor],
    uppers: list[Tensor],
    lines: list[Tensor],
    C: Tensor | None,
    known_lower: Tensor | None,
    known_upper: Tensor | None,
    geometry: list[int],
    leaks: list[float],
    rule: str,
    bound_upper: bool,
) -> tuple[Tensor, Tensor]:
    known = None if known_lower is None or known_upper is None else (known_lower, known_upper)
    plain = not any(leaks) and not any(given.numel() for given in lines)
    if plain and rule == "adaptive":
        return _pass(x_L, x_U, weights, biases, lowers, uppers, C, known, geometry, bound_upper, hbox=False)
    if plain and rule == "mask" and not bound_upper and known is None and _is_radius(x_L, x_U, biases):
        nothing: list[None] = [None] * len(weights)
        radius, upper = _pass(x_L, x_U, weights, nothing, lowers, uppers, C, None, geometry, False, hbox=True)
        return -radius, upper
    return ops.crown_pass.reference(
        x_L,
        x_U,
        weights,
        biases,
        lowers,
        uppers,
        lines,
        C,
        known_lower,
        known_upper,
        geometry,
        leaks,
        rule,
        bound_upper,
    )


def _is_radius(x_L: Tensor, x_U: Tensor, biases: list[Tensor]) -> bool:
    """Whether a pass has a box around 0 and no constants: its bounds are then radii."""
    return torch.equal(x_L, -x_U) and not any(bias.any() for bias in biases)


@ops.chain_bounds.implement("cpu")
def chain_bounds(
    x_L: Tensor,
    x_U: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    C: Tensor | None,
    geometry: list[int],
    leaks: list[float],
    method: str,
    prune: bool,
    bound_upper: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    if keep or any(leaks) or method == "DeepZ":
        return ops.chain_bounds.reference(
            x_L, x_U, weights, biases, C, geometry, leaks, method, prune, bound_upper, keep
        )
    lower, upper = empty_bounds(x_L, weights, C, geometry, bound_upper)
    members, samples, rows = lower.shape
    x_L, x_U, C = x_L.contiguous(), x_U.contiguous(), None if C is None else C.contiguous()
    layers, _kept = _layers(weights, biases, [], [])
    _kernel("chain", x_L)(
        members,
        samples,
        list(geometry),
        layers,
        _address(x_L),
        _address(x_U),
        _address(C),
        rows,
        METHODS.index(method),
        prune,
        _address(lower),
        _address(upper),
        _threads(),
    )
    return lower, upper, lower.new_empty(0)


def _pass(
    x_L: Tensor,
    x_U: Tensor,
    weights: list[Tensor],
    biases: list[Tensor] | list[None],
    lowers: list[Tensor],
    uppers: list[Tensor],
    C: Tensor | None,
    known: tuple[Tensor, Tensor] | None,
    geometry: list[int],
    bound_upper: bool,
    hbox: bool,
) -> tuple[Tensor, Tensor]:
    lower, upper = empty_bounds(x_L, weights, C, geometry, bound_upper)
    members, samples, rows = lower.shape
    x_L, x_U, box_stride = _box(x_L, x_U)
    C = None if C is None else C.contiguous()
    known_lower, known_upper = (None, None) if known is None else (known[0].contiguous(), known[1].contiguous())
    layers, _kept = _layers(weights, biases, lowers, uppers)
    _kernel("pass", x_L)(
        members,
        samples,
        list(geometry),
        layers,
        _address(x_L),
        _address(x_U),
        box_stride,
        _address(C),
        rows,
        _address(known_lower),
        _address(known_upper),
        _address(lower),
        _address(upper),
        hbox,
        _threads(),
    )
    return lower, upper


def _layers(
    weights: list[Tensor], biases: list[Tensor] | list[None], lowers: list[Tensor], uppers: list[Tensor]
) -> tuple[list[tuple[int, ...]], list[Any]]:
    """Each layer's addresses and strides, and the tensors made here, to be kept until the kernel is done."""
    kept: list[Any] = []
    layers = []
    for k, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        weight, weight_stride = _members(weight)
        bias, bias_stride = (None, 0) if bias is None else _members(bias)
        bounds = [t[k].contiguous() if k < len(t) else None for t in (lowers, uppers)]
        kept += [weight, bias, *bounds]
        layers.append((_address(weight), weight_stride, _address(bias), bias_stride, *map(_address, bounds)))
    return layers, kept


@ops.relu_relaxation.implement("cpu")
def relu_relaxation(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    lower, upper = lower.contiguous(), upper.contiguous()
    slopes = [torch.empty_like(lower) for _ in range(3)]
    _kernel("relu_relaxation", lower)(
        _address(lower), _address(upper), lower.numel(), *map(_address, slopes), _threads()
    )
    return slopes[0], slopes[1], slopes[2]


@ops.hbox_relu.implement("cpu")
def hbox_relu(box_lower: Tensor, box_upper: Tensor, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    given = [t.contiguous() for t in (box_lower, box_upper, lower, upper)]
    out = torch.empty_like(given[0]), torch.empty_like(given[0])
    _kernel("hbox_relu", lower)(*map(_address, given), lower.numel(), *map(_address, out), _threads())
    return out


@ops.robust_cross_entropy.implement("cpu")
def robust_cross_entropy(margin_lower: Tensor) -> Tensor:
    margin_lower = margin_lower.contiguous()
    loss = margin_lower.new_empty(margin_lower.shape[0])
    _kernel("robust_cross_entropy", margin_lower)(
        _address(margin_lower), *margin_lower.shape, _address(loss), _threads()
    )
    return loss
