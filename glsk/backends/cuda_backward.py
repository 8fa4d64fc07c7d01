"""Gradients of the ``cuda`` backend's ops: launchers of csrc/cuda/*_backward.cu.

Each takes an op's operands, its outputs, their upstream gradients (empty for zero) and, of every tensor among
the operands, whether it wants a gradient; it returns one for each of those tensors, or None.
"""

from collections.abc import Iterator
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from glsk import ops
from glsk.backends import cuda_views as cuda
from glsk.geometry import decode

Gradients = list[Tensor | None]


@ops.crown_pass.implement_backward("cuda")
def crown_pass(
    operands: list[Any], outputs: tuple[Tensor, ...], grads: tuple[Tensor, ...], needs: list[bool]
) -> Gradients:
    """The gradient of a pass (csrc/cuda/pass_general_backward.cu): no tape, the same bits every time."""
    x_L, x_U, weights, biases, lowers, uppers, lines, C, known_lower, known_upper, geometry, leaks, rule, _ = operands
    if len(weights) > cuda._CUDA.max_layers:
        return ops.crown_pass.reference_gradient(operands, grads, needs)
    wanted = _Wanted(operands[:10], needs)
    sides = [_given(grad) for grad in grads]
    known: list[Tensor | None] = [None, None]
    if known_lower is not None and known_upper is not None:
        # A pruned row passes its gradient on to the known bounds that it kept.
        stable = (known_lower >= 0) | (known_upper <= 0)
        known = [None if side is None else side.masked_fill(~stable, 0.0) for side in sides]
        sides = [None if side is None else side.masked_fill(stable, 0.0) for side in sides]

    members, samples = weights[0].shape[0], x_L.shape[1]
    layers = decode(geometry)
    rows = layers[-1].out_features if C is None else C.shape[1]
    per_row = max([rows if line.numel() and line.shape[2] > 1 else 1 for line in lines], default=1)
    inner = [layer.out_features for layer in layers[:-1]]
    sizes = [tensor[0].numel() for layer in zip(weights, biases, strict=True) for tensor in layer]

    def zeros(operand: slice, *shape: int) -> Tensor | None:
        return cuda.empty(x_L, *shape).zero_() if wanted.any(operand) else None

    box = zeros(slice(0, 2), members, samples, 2, layers[0].in_features)
    of_C = zeros(slice(7, 8), members, samples, rows, layers[-1].out_features)
    of_bounds = zeros(slice(4, 6), members, samples, 2, sum(inner))
    of_lines = zeros(slice(6, 7), members, samples, per_row, 4, sum(inner))
    parameters = zeros(slice(2, 4), members, sum(sizes))
    made = (box, of_C, of_bounds, of_lines, parameters)
    if any(t is not None and t.numel() for t in made) and any(side is not None for side in sides):
        view = cuda.Views()
        arguments = cuda.arguments_of(
            *(view, x_L, x_U, weights, biases, lowers, uppers, lines, C, (None, None), geometry, leaks, rule),
            *(x_L.new_empty(1).expand(members, samples, rows),) * 2,
            signs=2,
        )
        sides = [None if side is None else side.contiguous() for side in sides]
        addresses = [0 if t is None else t.data_ptr() for t in (*sides, *made)]
        cuda._CUDA.run_pass_backward(*cuda.where(x_L), arguments, addresses, cuda.Allocator(x_L))

    each = list(_split(parameters, sizes))
    bounds = list(_split(of_bounds, inner))
    found: Gradients = [None if box is None else box[:, :, side] for side in range(2)]
    found += [*each[::2], *each[1::2]]
    found += [None if t is None else t[:, :, side] for side in range(2) for t in bounds]
    found += _split(of_lines, inner)
    found += [of_C.sum(0) if of_C is not None else None] * (C is not None)
    found += [grad for grad, of in zip(known, (known_lower, known_upper), strict=True) if of is not None]
    return wanted.in_shape(found)


@ops.ibp_affine.implement_backward("cuda")
def ibp_affine(
    operands: list[Any], outputs: tuple[Tensor, ...], grads: tuple[Tensor, ...], needs: list[bool]
) -> Gradients:
    """The gradient of an interval step (csrc/cuda/ibp_backward.cu)."""
    lower, upper, weight, bias, geometry, relu, leak = operands
    wanted = _Wanted(operands[:4], needs)
    (layer,) = decode(geometry)
    members, samples = weight.shape[0], lower.shape[1]
    sides = [_given(grad) for grad in grads]
    sizes = [weight[0].numel(), bias[0].numel()]
    box = cuda.empty(lower, members, samples, 2, layer.in_features).zero_() if wanted.any(slice(0, 2)) else None
    parameters = cuda.empty(lower, members, sum(sizes)).zero_() if wanted.any(slice(2, 4)) else None
    if any(side is not None for side in sides) and members * samples * layer.out_features:
        view = cuda.Views()
        given = [lower.new_zeros(members, samples, layer.out_features) if s is None else s.contiguous() for s in sides]
        cuda._CUDA.run_ibp_backward(
            *cuda.where(lower),
            lower.dtype == torch.float64,
            members,
            samples,
            list(geometry),
            relu,
            leak,
            view.weights(weight),
            view(lower),
            view(upper),
            [0 if t is None else t.data_ptr() for t in (*given, box, parameters)],
            cuda.Allocator(lower),
        )
    found: Gradients = [None if box is None else box[:, :, side] for side in range(2)]
    return wanted.in_shape([*found, *_split(parameters, sizes)])


class _Wanted:
    """The tensors among an op's operands, and which of them want a gradient."""

    def __init__(self, operands: list[Any], needs: list[bool]) -> None:
        self.counts = [sum(isinstance(leaf, Tensor) for leaf in tree_leaves(operand)) for operand in operands]
        self.tensors = [leaf for leaf in tree_leaves(operands) if isinstance(leaf, Tensor)]
        self.needs = needs

    def any(self, operands: slice) -> bool:
        """Whether a tensor of these operands does."""
        at = list(accumulate(self.counts, initial=0))
        return any(self.needs[at[operands.start] : at[operands.stop]])

    def in_shape(self, found: Gradients) -> Gradients:
        """Summed over what was broadcast, in the shapes of the tensors; None for those that want none."""
        return [
            _fit(grad, tensor) if need and grad is not None else None
            for grad, tensor, need in zip(found, self.tensors, self.needs, strict=True)
        ]


def _fit(grad: Tensor, tensor: Tensor) -> Tensor | None:
    if tensor.numel() == 0:
        return torch.zeros_like(tensor)
    if grad.numel() == tensor.numel():
        return grad.reshape(tensor.shape)
    return grad.sum_to_size(tensor.shape)


def _given(grad: Tensor) -> Tensor | None:
    return grad if grad.numel() else None


def _split(flat: Tensor | None, sizes: list[int]) -> Iterator[Tensor | None]:
    """Its last axis in pieces."""
    for begin, end in pairwise(accumulate(sizes, initial=0)):
        yield None if flat is None else flat[..., begin:end]
