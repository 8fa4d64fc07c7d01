"""What ``branch_pass`` and ``plane_search`` demand of their arguments, as ``glsk.ops.checks`` does for the others."""

import math

import torch
from torch import Tensor

from glsk.ops import checks
from glsk.ops.branch_columns import parents


def branch_pass(
    x_L: Tensor,
    x_U: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    lower: Tensor,
    upper: Tensor,
    index: Tensor | None,
    splits: Tensor | None,
    C: Tensor,
    start: Tensor | None,
    threshold: Tensor | None,
    parent: Tensor | None,
    extra: Tensor | None,
    columns: Tensor | None,
    planes: Tensor | None,
    geometry: list[int],
    leaks: list[float],
    iterations: int,
    lr_alpha: float,
    lr_beta: float,
    decay: float,
    *_: bool,
) -> None:
    """A chain with one weight set, images, and subproblems of them; the values of integers are checked later."""
    op = "branch_pass"
    layers, tensors = checks.chain(op, tuple(geometry)), checks.Tensors(op, "x_L", x_L)
    tensors.one("x_L", x_L, None, layers[0].in_features)
    tensors.one("x_U", x_U, *x_L.shape)
    tensors.lists(len(layers), weights=weights, biases=biases, leaks=leaks)
    checks.chain_weights(tensors, layers, weights, biases, leaks, members=1)
    units = sum(layer.out_features for layer in layers[:-1])
    for name, bound in (("lower", lower), ("upper", upper)):
        tensors.one(name, bound, x_L.shape[0], units)
    samples = x_L.shape[0]
    if index is not None:
        samples = _integers(op, "index", index, torch.int64, x_L, None)
    if samples < 1:
        raise ValueError(f"{op}: {'x_L' if index is None else 'index'}: no subproblems")
    if columns is not None:
        _integers(op, "columns", columns, torch.int64, x_L, x_L.shape[0], None)
        units = columns.shape[1]
    rows = samples
    if parent is not None:
        _integers(op, "parent", parent, torch.int64, x_L, samples)
        rows = parents(splits, start, C)
    if splits is not None:
        _integers(op, "splits", splits, torch.int8, x_L, rows, units)
    if extra is not None:
        _integers(op, "extra", extra, torch.int32, x_L, samples)
    tensors.one("C", C, samples, None, layers[-1].out_features)
    if C.shape[1] < 1:
        raise ValueError(f"{op}: C: expected at least one row, got {list(C.shape)}")
    tensors.optional("start", start, rows, C.shape[1], units)
    tensors.optional("threshold", threshold, samples, C.shape[1])
    if planes is not None:
        if len(layers) < 2 or not layers[0].relu:
            raise ValueError(f"{op}: planes: no activation follows the first layer")
        tensors.one("planes", planes, x_L.shape[0], layers[0].out_features, math.prod(layers[0].weight_shape[1:]) + 1)
    if iterations < 1:
        raise ValueError(f"{op}: iterations: expected at least 1, got {iterations}")
    for name, rate in (("lr_alpha", lr_alpha), ("lr_beta", lr_beta), ("decay", decay)):
        if not (rate >= 0 and math.isfinite(rate)):
            raise ValueError(f"{op}: {name}: expected a number >= 0, got {rate}")


def plane_search(
    x_L: Tensor,
    x_U: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    lower: Tensor,
    upper: Tensor,
    splits: Tensor | None,
    C: Tensor,
    start: Tensor,
    units: Tensor,
    shares: Tensor,
    geometry: list[int],
    leaks: list[float],
    iterations: int,
) -> None:
    """A chain with one weight set, and rows with a box each; the values of integers are checked later."""
    op = "plane_search"
    layers, tensors = checks.chain(op, tuple(geometry)), checks.Tensors(op, "x_L", x_L)
    if len(layers) < 2 or not layers[0].relu:
        raise ValueError(f"{op}: geometry: no activation follows the first layer")
    tensors.one("x_L", x_L, None, layers[0].in_features)
    rows, hidden = x_L.shape[0], sum(layer.out_features for layer in layers[:-1])
    if rows < 1:
        raise ValueError(f"{op}: x_L: no rows")
    tensors.one("x_U", x_U, *x_L.shape)
    tensors.lists(len(layers), weights=weights, biases=biases, leaks=leaks)
    checks.chain_weights(tensors, layers, weights, biases, leaks, members=1)
    if leaks[0] != 0:
        raise ValueError(f"{op}: leaks: the first layer's must be 0, got {leaks[0]}")
    for name, tensor in (("lower", lower), ("upper", upper), ("start", start)):
        tensors.one(name, tensor, rows, hidden)
    if splits is not None:
        _integers(op, "splits", splits, torch.int8, x_L, rows, hidden)
    tensors.one("C", C, rows, layers[-1].out_features)
    _integers(op, "units", units, torch.int64, x_L, rows, None)
    tensors.one("shares", shares, rows, units.shape[1], math.prod(layers[0].weight_shape[1:]))
    if iterations < 1:
        raise ValueError(f"{op}: iterations: expected at least 1, got {iterations}")


def _integers(op: str, name: str, tensor: Tensor, dtype: torch.dtype, like: Tensor, *shape: checks.Size) -> int:
    """A tensor of integers; returns its first size."""
    if tensor is None:  # PyTorch's schemas let it pass for a tensor
        raise TypeError(f"{op}: {name}: expected a tensor, got None")
    if tensor.dtype != dtype or tensor.layout is not torch.strided:
        raise TypeError(f"{op}: {name}: expected dense {dtype}, got {tensor.dtype}")
    fits = tensor.dim() == len(shape) and all(n in (None, m) for n, m in zip(shape, tensor.shape, strict=True))
    if not fits or tensor.device != like.device:
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise ValueError(f"{op}: {name}: expected [{wanted}] on {like.device}, got {list(tensor.shape)}")
    return tensor.shape[0]
