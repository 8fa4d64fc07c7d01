"""Convolutions, average pools and paddings of ONNX."""

from typing import Any

import numpy as np

from glsk.formats.onnx_build import Builder, Floats
from glsk.formats.onnx_graph import Node, whole_numbers

Pads = tuple[int, int, int, int]
"""Zeros above, left, below, right."""


def conv(builder: Builder, node: Node, inputs: list[Any], place: int) -> None:
    """Conv over images. Uneven padding becomes even padding of a kernel that has zeros at its edges."""
    if place != 0 or len(inputs) < 2:
        raise node.refuse("expected a value and a weight")
    weight = np.asarray(inputs[1], np.float64)
    bias = None if len(inputs) < 3 or inputs[2] is None else np.asarray(inputs[2], np.float64)
    if weight.ndim != 4 or (bias is not None and bias.shape != weight.shape[:1]):
        raise node.refuse(f"only over images: weight [O, C, h, w] and bias [O], got {list(weight.shape)}")
    if node.whole("group", 1) != 1 or set(node.wholes("dilations") or [1]) != {1}:
        raise node.refuse("only groups 1 and dilations 1")
    kernel = (weight.shape[2], weight.shape[3])
    if tuple(node.wholes("kernel_shape") or kernel) != kernel:
        raise node.refuse(f"kernel_shape does not fit the weight {list(weight.shape)}")
    stride = _pair(node, "strides", (1, 1))
    pads = _add(_pads(builder, node, kernel, stride), builder.padding)
    builder.padding = (0, 0, 0, 0)
    weight, padding = _even(weight, pads)
    builder.conv(node, weight, bias, stride, padding)


def average_pool(builder: Builder, node: Node, inputs: list[Any], place: int) -> None:
    """AveragePool over images, in which padding counts, or there is none."""
    kernel = _pair(node, "kernel_shape", None)
    stride = _pair(node, "strides", (1, 1))
    pads = _pads(builder, node, kernel, stride)
    counted = node.whole("count_include_pad", 0)
    if node.whole("ceil_mode", 0) or set(node.wholes("dilations") or [1]) != {1}:
        raise node.refuse("only ceil_mode 0 and dilations 1")
    if any(pads) and not counted:
        raise node.refuse("only with count_include_pad, where it pads")
    if any(builder.padding) or pads[:2] != pads[2:]:
        raise node.refuse("only with even padding of its own")
    builder.average_pool(node, kernel, stride, pads[:2])


def global_average_pool(builder: Builder, node: Node, inputs: list[Any], place: int) -> None:
    """The average over each channel."""
    if builder.where.ndim != 4:
        raise node.refuse(f"only over images, is given {list(builder.where.shape)}")
    size = (builder.where.shape[2], builder.where.shape[3])
    builder.average_pool(node, size, size, (0, 0))


def pad(builder: Builder, node: Node, inputs: list[Any], place: int) -> None:
    """Zeros around an image, which the convolution after it takes over; or nothing at all."""
    mode = node.text("mode", b"constant")
    given = node.wholes("pads") if len(inputs) < 2 else inputs[1]
    value = node.number("value", 0.0) if len(inputs) < 3 or inputs[2] is None else inputs[2]
    if place != 0 or given is None or (len(inputs) > 3 and inputs[3] is not None):
        raise node.refuse("expected a value and pads as constants, for all axes")
    pads = whole_numbers(node, given)
    if not any(pads):
        return
    if mode != b"constant" or np.any(value) or builder.where.ndim != 4 or len(pads) != 8 or min(pads) < 0:
        raise node.refuse("only with zeros, around images")
    if any(pads[i] for i in (0, 1, 4, 5)):
        raise node.refuse("only around rows and columns")
    builder.padding = _add(builder.padding, (pads[2], pads[3], pads[6], pads[7]))


def _pair(node: Node, name: str, default: tuple[int, int] | None) -> tuple[int, int]:
    values = node.wholes(name) or default
    if values is None or len(values) != 2 or min(values) < 1:
        raise node.refuse(f"{name}: expected two numbers >= 1, got {values}")
    return int(values[0]), int(values[1])


def _pads(builder: Builder, node: Node, kernel: tuple[int, int], stride: tuple[int, int]) -> Pads:
    """The padding of ``pads`` or ``auto_pad``."""
    given, automatic = node.wholes("pads"), node.text("auto_pad", b"NOTSET")
    if automatic == b"VALID":
        return (0, 0, 0, 0)
    if automatic in (b"SAME_UPPER", b"SAME_LOWER"):
        if builder.where.ndim != 4 or any(builder.padding):
            raise node.refuse("auto_pad only over images that no Pad came before")
        sizes = zip(builder.where.shape[2:], kernel, stride, strict=True)
        total = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in sizes]
        less, more = [n // 2 for n in total], [n - n // 2 for n in total]
        first, last = (less, more) if automatic == b"SAME_UPPER" else (more, less)
        return (first[0], first[1], last[0], last[1])
    pads = [0, 0, 0, 0] if given is None else [int(n) for n in given]
    if automatic not in (b"NOTSET", b"") or len(pads) != 4 or min(pads) < 0:
        raise node.refuse(f"padding {pads}, auto_pad {automatic!r}")
    return (pads[0], pads[1], pads[2], pads[3])


def _add(a: Pads, b: Pads) -> Pads:
    return (a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3])


def _even(weight: Floats, pads: Pads) -> tuple[Floats, tuple[int, int]]:
    """The same convolution with as much padding on either side: zeros where its kernel then reaches further."""
    top, left, bottom, right = pads
    height, width = max(top, bottom), max(left, right)
    rows, columns = (height - top, height - bottom), (width - left, width - right)
    return np.pad(weight, ((0, 0), (0, 0), rows, columns)), (height, width)
