"""The fused gradients of the ``cpu`` backend's ops."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from glsk import ops, workspace
from glsk.cpu.forward import rows_of
from glsk.cpu.given import Given, address, chain_given, ibp_given, kernel, pass_given
from glsk.geometry import Geometry, decode

GROUPS = 32
"""Partial sums of a weight's gradient, over members and parts of the batch, from which more would only take memory. The
number is not that of threads: they get the same bits however many they are."""

DEFAULT_LIMIT = 1 << 30
"""Bytes of scratch memory where no call has set a limit."""

SUMS_SHARE = 0.5
"""Of the limit, at most, for partial sums."""

Gradients = list[Tensor | None]


@ops.ibp_affine.implement_backward("cpu")
def ibp_affine(
    operands: list[Any], outputs: tuple[Tensor, ...], grads: tuple[Tensor, ...], needs: list[bool]
) -> Sequence[Tensor | None]:
    """Gradients by lower, upper, weight and bias."""
    lower, upper, weight, bias, geometry, relu, leak = operands
    d_lower, d_upper, d_weight, d_bias = _like([lower, upper, weight, bias], needs)
    given = Given()
    wide = max(lower.shape[0], upper.shape[0])  # as the kernel sees the box
    by_box = [None if d is None else d.new_zeros(wide, *d.shape[1:]) for d in (d_lower, d_upper)]
    kernel("ibp_affine_backward", lower)(
        ibp_given(given, lower, upper, weight, bias, geometry, relu, leak, (None, None)),
        address(grads[0]),
        address(grads[1]),
        (address(d_weight), address(d_bias), 0, 0, 0),
        *map(address, by_box),
        _groups(decode(geometry), weight, lower.shape[1]),
    )
    return [*_narrowed(by_box, [d_lower, d_upper]), d_weight, d_bias]


@ops.crown_pass.implement_backward("cpu")
def crown_pass(
    operands: list[Any], outputs: tuple[Tensor, ...], grads: tuple[Tensor, ...], needs: list[bool]
) -> Sequence[Tensor | None]:
    """Gradients by the box, weights, biases, bounds or lines, C and known bounds."""
    x_L, x_U, weights, biases, lowers, uppers, lines, C, known_lower, known_upper, geometry, leaks, rule, two = operands
    layers = decode(geometry)
    wants = iter(needs)
    d_x = _like([x_L, x_U], wants)
    d_weights, d_biases = _like(weights, wants), _like(biases, wants)
    d_lowers, d_uppers = _like(lowers, wants), _like(uppers, wants)
    d_lines = _like(lines, wants)
    (d_C,) = _like([C], wants) if C is not None else (None,)
    d_known = [_like([k], wants)[0] if k is not None else None for k in (known_lower, known_upper)]
    d_lower, d_upper = grads[0], grads[1] if two else None
    if known_lower is not None and known_upper is not None:  # rows that keep them have no other gradient
        stable = (known_lower >= 0) | (known_upper <= 0)
        d_known = [
            None if to is None else torch.where(stable, by, 0) if by is not None else torch.zeros_like(to)
            for to, by in zip(d_known, (d_lower, d_upper), strict=True)
        ]
        d_lower = torch.where(stable, 0, d_lower)
        d_upper = None if d_upper is None else torch.where(stable, 0, d_upper)
    used = rows_of(C, geometry, lines, x_L)
    members, samples = weights[0].shape[0], x_L.shape[1]
    boxes = max(x_L.shape[0], x_U.shape[0])
    by_x = [None if d is None else d.new_zeros(boxes, *d.shape[1:]) for d in d_x]
    by_layers = [(address(w), address(b), 0, 0, 0) for w, b in zip(d_weights, d_biases, strict=True)]
    by_lines: Gradients = [  # an empty tensor, which stands for no lines, has an empty gradient
        None if d is None or not d.numel() else d.new_zeros(members, samples, *d.shape[2:]) for d in d_lines
    ]
    for k, by in enumerate(by_lines):
        made = not lines[k].numel() and layers[k].relu
        low, up = (d_lowers[k], d_uppers[k]) if made else (None, None)
        by_layers[k] = (*by_layers[k][:2], address(low), address(up), address(by) if lines[k].numel() else 0)
    given = Given()
    nothing = None, None
    kernel("crown_pass_backward", x_L)(
        pass_given(
            given, x_L, x_U, weights, biases, lowers, uppers, lines, used, nothing, geometry, leaks, rule, nothing
        ),
        address(d_lower),
        address(d_upper),
        by_layers,
        *map(address, by_x),
        address(d_C),
        _groups(layers, weights[0], samples),
    )
    d_x, d_lines = _narrowed(by_x, d_x), _narrowed(by_lines, d_lines)
    found = [*d_x, *d_weights, *d_biases, *d_lowers, *d_uppers, *d_lines]
    found += [d_C] if C is not None else []
    return [*found, *[d for d, k in zip(d_known, (known_lower, known_upper), strict=True) if k is not None]]


@ops.chain_bounds.implement_backward("cpu")
def chain_bounds(
    operands: list[Any], outputs: tuple[Tensor, ...], grads: tuple[Tensor, ...], needs: list[bool]
) -> Sequence[Tensor | None]:
    """Gradients by the box, weights, biases and C."""
    x_L, x_U, weights, biases, C, geometry, leaks, method, prune, two, keep = operands
    d_lower = grads[0] if grads[0].numel() else torch.zeros_like(outputs[0])
    d_upper = grads[1] if two and grads[1].numel() else None
    d_hidden = grads[2] if grads[2].numel() else None
    if d_hidden is not None and prune:
        return ops.chain_bounds.reference_gradient(operands, grads, needs)  # rows that keep an interval's bounds
    wants = iter(needs)
    d_x = _like([x_L, x_U], wants)
    d_weights, d_biases = _like(weights, wants), _like(biases, wants)
    (d_C,) = _like([C], wants) if C is not None else (None,)
    layers = decode(geometry)
    parts = _parts(layers, weights[0], x_L.shape[1], outputs[2] if keep else None)
    for p, b in parts:
        part = (
            x_L[:, b],
            x_U[:, b],
            [w[p] for w in weights],
            [bias[p] for bias in biases],
            None if C is None else C[b],
            geometry,
            leaks,
            method,
            prune,
        )
        hidden = outputs[2][p, b] if keep else ops.chain_bounds(*part, False, True, backend="cpu")[2]
        to_x, to_layers, to_C = d_x, [d_weights, d_biases], d_C
        if len(parts) > 1:  # members and samples are added up part by part, in order
            to_x = [None if d is None else torch.zeros_like(d[:, b]) for d in d_x]
            to_layers = [[None if d is None else torch.zeros_like(d[p]) for d in some] for some in to_layers]
            to_C = None if d_C is None else torch.zeros_like(d_C[b])
        given = Given()
        kernel("chain_bounds_backward", x_L)(
            chain_given(given, *part, (None, None, given.contiguous(hidden))),
            address(given.contiguous(d_lower[p, b])),
            0 if d_upper is None else address(given.contiguous(d_upper[p, b])),
            0 if d_hidden is None else address(given.contiguous(d_hidden[p, b])),
            [(address(w), address(bias), 0, 0, 0) for w, bias in zip(*to_layers, strict=True)],
            *map(address, to_x),
            address(to_C),
            _groups(layers, part[2][0], hidden.shape[1]),
        )
        if len(parts) == 1:
            break
        _add([None if d is None else d[:, b] for d in d_x], to_x)
        _add([None if d is None else d[p] for d in d_weights + d_biases], to_layers[0] + to_layers[1])
        _add([None if d_C is None else d_C[b]], [to_C])
    found = [*d_x, *d_weights, *d_biases]
    return [*found, d_C] if C is not None else found


@ops.robust_cross_entropy.implement_backward("cpu")
def robust_cross_entropy(
    operands: list[Any], outputs: tuple[Tensor, ...], grads: tuple[Tensor, ...], needs: list[bool]
) -> Sequence[Tensor | None]:
    """The gradient by the margins."""
    margins = operands[0].contiguous()
    found = torch.empty_like(margins)
    kernel("robust_cross_entropy_backward", margins)(
        address(margins), address(grads[0]), *margins.shape, address(found), torch.get_num_threads()
    )
    return [found]


def _like(tensors: Sequence[Tensor], needs: "Sequence[bool] | Iterator[bool]") -> Gradients:
    """Zeros where a gradient is wanted."""
    wants = iter(needs)
    return [t.new_zeros(t.shape) if next(wants) else None for t in tensors]


def _add(to: Gradients, parts: Gradients) -> None:
    for whole, part in zip(to, parts, strict=True):
        if whole is not None and part is not None:
            whole += part


def _narrowed(found: Gradients, wanted: Gradients) -> Gradients:
    """Gradients by tensors that members or samples shared."""
    pairs = zip(found, wanted, strict=True)
    return [None if by is None or like is None else by.sum_to_size(like.shape) for by, like in pairs]


def _sums(layers: Sequence[Geometry], weight: Tensor) -> int:
    """Bytes of one partial sum, at most."""
    weights, height = 0, 0
    for layer in layers:
        rows = max(layer.kernel_height, height)  # of the kernel: a linear layer's may be the whole image before it
        weights += (layer.out_channels + 8) * (math.prod(layer.weight_shape[1:]) + 2 * rows)
        height = layer.out_height
    return 3 * weights * weight.itemsize + 64 * 17 * sum(layer.out_channels for layer in layers)


def _limit() -> int:
    granted = workspace.granted()
    return DEFAULT_LIMIT if granted is None else granted


def _groups(layers: Sequence[Geometry], weight: Tensor, samples: int) -> int:
    members = weight.shape[0]
    room = int(SUMS_SHARE * _limit()) // (members * _sums(layers, weight))
    return max(1, min(-(-GROUPS // members), room, samples))


def _parts(
    layers: Sequence[Geometry], weight: Tensor, samples: int, hidden: Tensor | None
) -> list[tuple[slice, slice]]:
    """Members and samples that are differentiated at once, so that sums and hidden bounds stay within their shares."""
    members = weight.shape[0]
    p_step = max(1, min(members, int(SUMS_SHARE * _limit()) // _sums(layers, weight)))
    b_step = samples
    if hidden is None:
        pair = 2 * sum(layer.out_features for layer in layers[:-1]) * weight.itemsize
        pairs = max(1, int(workspace.HIDDEN_SHARE * _limit()) // max(1, pair))
        p_step = min(p_step, max(1, pairs // min(samples, 64)))
        b_step = max(1, min(samples, pairs // p_step))
    return [
        (slice(p, min(p + p_step, members)), slice(b, min(b + b_step, samples)))
        for p in range(0, members, p_step)
        for b in range(0, samples, b_step)
    ]
