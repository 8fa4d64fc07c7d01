"""The operators of ONNX that glsk can bound, each read from its node into the network that is built."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import nn

from glsk.formats.onnx_build import Builder
from glsk.formats.onnx_graph import Node, whole_numbers
from glsk.formats.onnx_windows import average_pool, conv, global_average_pool, pad


def _arithmetic(builder: Builder, node: Node, inputs: list[Any], place: int) -> None:
    if len(inputs) != 2:
        raise node.refuse(f"expected 2 inputs, got {len(inputs)}")
    c = np.asarray(inputs[1 - place], np.float64)
    one, zero = np.ones(()), np.zeros(())
    if node.op == "Div" and place == 1:
        raise node.refuse("divides by the network's value")
    with np.errstate(divide="ignore"):
        factor, term = {
            "Add": lambda: (one, c),
            "Sub": lambda: (one, -c) if place == 0 else (-one, c),
            "Mul": lambda: (c, zero),
            "Div": lambda: (1.0 / c, zero),
        }[node.op]()
    builder.elementwise(node, factor, term)


def _gemm(builder: Builder, node: Node, inputs: list[Any], place: int) -> None:
    alpha, beta = node.number("alpha", 1.0), node.number("beta", 1.0)
    if place != 0 or node.whole("transA", 0):
        raise node.refuse("the network's value must be its first input, not transposed")
    W = np.asarray(inputs[1], np.float64)
    W = W if node.whole("transB", 0) else W.T
    if W.ndim != 2:
        raise node.refuse(f"weight: expected 2 axes, got {list(W.shape)}")
    bias = None
    if len(inputs) > 2 and inputs[2] is not None:
        try:
            bias = beta * np.broadcast_to(np.asarray(inputs[2], np.float64), (1, len(W)))[0]
        except ValueError:
            raise node.refuse(f"bias {list(inputs[2].shape)} for {len(W)} outputs") from None
    builder.linear(node, W if alpha == 1.0 else alpha * W, bias)


def _matmul(builder: Builder, node: Node, inputs: list[Any], place: int) -> None:
    W = np.asarray(inputs[1 - place], np.float64)
    if W.ndim != 2:
        raise node.refuse(f"weight: expected 2 axes, got {list(W.shape)}")
    if place == 0:
        builder.linear(node, W.T, None)
    else:  # W v, of columns v [k, 1]
        builder.where = np.swapaxes(builder.where, -1, -2) if builder.where.ndim > 1 else builder.where
        builder.linear(node, W, None)
        builder.where = np.swapaxes(builder.where, -1, -2) if builder.where.ndim > 1 else builder.where


def _batch_norm(builder: Builder, node: Node, inputs: list[Any], place: int) -> None:
    node.number("momentum", 0.9)
    if node.whole("training_mode", 0) or not node.whole("spatial", 1) or len(node.outputs) > 1:
        raise node.refuse("only in inference, over axis 1")
    if place != 0 or len(inputs) != 5 or any(part is None for part in inputs[1:]):
        raise node.refuse("expected a value, and scale, bias, mean and variance as constants")
    parts = [np.asarray(part, np.float64) for part in inputs[1:]]
    scale, bias, mean, var = parts
    builder.batch_norm(node, scale, bias, mean, var, node.number("epsilon", 1e-5))


def _relu(builder: Builder, node: Node, inputs: list[Any], place: int) -> None:
    builder.activation(node, nn.ReLU())


def _leaky_relu(builder: Builder, node: Node, inputs: list[Any], place: int) -> None:
    builder.activation(node, nn.LeakyReLU(node.number("alpha", 0.01)))


def _same(builder: Builder, node: Node, inputs: list[Any], place: int) -> None:
    if node.op == "Dropout":
        node.number("ratio", 0.5)
        node.whole("seed", 0)
        if len(inputs) > 2 and inputs[2] is not None and bool(np.any(inputs[2])):
            raise node.refuse("is in training mode")


def _reshape(builder: Builder, node: Node, inputs: list[Any], place: int) -> None:
    shape = builder.where.shape
    if node.op == "Flatten":
        axis = node.whole("axis", 1)
        if not -len(shape) <= axis <= len(shape):
            raise node.refuse(f"axis {axis} of {list(shape)}")
        axis = axis % len(shape) if axis < 0 else axis
        target = [math.prod(shape[:axis]), math.prod(shape[axis:])]
    else:
        if place != 0 or len(inputs) != 2:
            raise node.refuse("expected a value and a shape")
        target = whole_numbers(node, inputs[1])
        if not node.whole("allowzero", 0):
            target = [shape[i] if n == 0 and i < len(shape) else n for i, n in enumerate(target)]
    try:
        builder.where = builder.where.reshape(target)
    except ValueError:
        raise node.refuse(f"{list(shape)} has no shape {target}") from None


def _axes(builder: Builder, node: Node, inputs: list[Any], place: int) -> None:
    """Squeeze and Unsqueeze: their axes are an input since operator set 13."""
    given = inputs[1] if len(inputs) > 1 else node.wholes("axes")
    axes = None if given is None else tuple(whole_numbers(node, given))
    try:
        if node.op == "Squeeze":
            builder.where = np.squeeze(builder.where, axes)
        else:
            builder.where = np.expand_dims(builder.where, axes or ())
    except ValueError as error:  # AxisError is one too
        raise node.refuse(f"axes {axes} of {list(builder.where.shape)} ({error})") from None


def _transpose(builder: Builder, node: Node, inputs: list[Any], place: int) -> None:
    given = node.wholes("perm")
    order = list(range(builder.where.ndim))[::-1] if given is None else given
    if sorted(order) != list(range(builder.where.ndim)):
        raise node.refuse(f"perm {list(order)} of {list(builder.where.shape)}")
    builder.where = builder.where.transpose(order)


HANDLERS: dict[str, Callable[[Builder, Node, list[Any], int], None]] = {
    "Add": _arithmetic,
    "AveragePool": average_pool,
    "BatchNormalization": _batch_norm,
    "Conv": conv,
    "Div": _arithmetic,
    "Dropout": _same,
    "Flatten": _reshape,
    "Gemm": _gemm,
    "GlobalAveragePool": global_average_pool,
    "Identity": _same,
    "LeakyRelu": _leaky_relu,
    "MatMul": _matmul,
    "Mul": _arithmetic,
    "Pad": pad,
    "Relu": _relu,
    "Reshape": _reshape,
    "Squeeze": _axes,
    "Sub": _arithmetic,
    "Transpose": _transpose,
    "Unsqueeze": _axes,
}
"""Operator -> what a node of it does, given its constants and the place of the network's value among its inputs."""
