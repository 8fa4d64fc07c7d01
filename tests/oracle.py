"""An implementation of the relaxations that shares nothing with glsk: NumPy, one member, one sample, dense matrices.

A convolution is an explicit matrix, filled entry by entry; CROWN is the textbook's; HBox is propagated forwards with
its generator columns (glsk never builds them).
"""

from dataclasses import dataclass

import numpy as np
from torch import nn

from glsk import Normalize

Array = np.ndarray
Interval = tuple[Array, Array]


@dataclass
class Layer:
    """An affine map of flat vectors, whether an activation follows, and its slope below zero."""

    W: Array
    b: Array
    relu: bool = False
    leak: float = 0.0


def conv_matrix(weight: Array, size: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]) -> Array:
    """The matrix of a convolution with weight [Cout, Cin, kh, kw] on images [Cin, *size]."""
    cout, cin, kh, kw = weight.shape
    height, width = size
    oh = (height + 2 * padding[0] - kh) // stride[0] + 1
    ow = (width + 2 * padding[1] - kw) // stride[1] + 1
    matrix = np.zeros((cout, oh, ow, cin, height, width))
    for i in range(oh):
        for j in range(ow):
            for a in range(kh):
                for b in range(kw):
                    row, col = i * stride[0] + a - padding[0], j * stride[1] + b - padding[1]
                    if 0 <= row < height and 0 <= col < width:
                        matrix[:, i, j, :, row, col] = weight[:, :, a, b]
    return matrix.reshape(cout * oh * ow, cin * height * width)


def layers_of(net: nn.Sequential, input_shape: tuple[int, ...], params: dict[str, Array]) -> list[Layer]:
    """The affine layers of an ``nn.Sequential`` at the given parameters; Normalize is left to the caller."""
    shape, layers = input_shape, []
    for name, module in net.named_children():
        own = {key: params[f"{name}.{key}"] for key, _ in module.named_parameters()}
        if isinstance(module, nn.Conv2d):
            matrix = conv_matrix(own["weight"], shape[1:], module.stride, module.padding)
            pixels = matrix.shape[0] // module.out_channels
            bias = np.repeat(own["bias"], pixels) if "bias" in own else np.zeros(matrix.shape[0])
            layers.append(Layer(matrix, bias))
            out = [
                (shape[i + 1] + 2 * module.padding[i] - module.kernel_size[i]) // module.stride[i] + 1 for i in (0, 1)
            ]
            shape = (module.out_channels, *out)
        elif isinstance(module, nn.Linear):
            layers.append(Layer(own["weight"], own.get("bias", np.zeros(module.out_features))))
            shape = (module.out_features,)
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            gain = own.get("weight", 1.0) / np.sqrt(module.running_var.double().numpy() + module.eps)
            shift = own.get("bias", 0.0) - gain * module.running_mean.double().numpy()
            pixels = len(layers[-1].b) // module.num_features
            gain, shift = np.repeat(gain, pixels), np.repeat(shift, pixels)
            layers[-1] = Layer(gain[:, None] * layers[-1].W, gain * layers[-1].b + shift)
        elif isinstance(module, nn.AvgPool2d):
            channels, kernel = shape[0], module.kernel_size
            weight = np.zeros((channels, channels, *kernel))
            weight[range(channels), range(channels)] = 1 / (kernel[0] * kernel[1])
            matrix = conv_matrix(weight, shape[1:], module.stride, module.padding)
            layers.append(Layer(matrix, np.zeros(len(matrix))))
            out = [
                (n + 2 * p - k) // s + 1
                for n, p, k, s in zip(shape[1:], module.padding, kernel, module.stride, strict=True)
            ]
            shape = (channels, *out)
        elif isinstance(module, nn.ReLU | nn.LeakyReLU):
            layers[-1].relu, layers[-1].leak = True, getattr(module, "negative_slope", 0.0)
        elif not isinstance(module, nn.Flatten | Normalize):
            raise NotImplementedError(type(module))
    return layers


def bounds(method: str, layers: list[Layer], low: Array, high: Array, C: Array | None) -> list[Interval]:
    """Bounds of the output of every layer but the last, then of C times the last (merged)."""
    if C is not None:
        layers = [*layers[:-1], Layer(C @ layers[-1].W, C @ layers[-1].b)]
    methods = {"IBP": _ibp, "HBox": _hbox, "CROWN-IBP": _crown_ibp, "CROWN": _crown, "DeepZ": _deepz}
    return methods[method](layers, low, high)


def _ibp(layers: list[Layer], low: Array, high: Array) -> list[Interval]:
    found = []
    for layer in layers:
        positive, negative = np.maximum(layer.W, 0), np.minimum(layer.W, 0)
        low, high = positive @ low + negative @ high + layer.b, positive @ high + negative @ low + layer.b
        found.append((low, high))
        if layer.relu:
            low, high = np.maximum(low, layer.leak * low), np.maximum(high, layer.leak * high)
    return found


def _hbox(layers: list[Layer], low: Array, high: Array) -> list[Interval]:
    """Value = h + E e + beta b, e and b in [-1, 1]."""
    h, beta, E = (low + high) / 2, np.zeros_like(low), np.diag((high - low) / 2)
    found = []
    for layer in layers:
        h, beta, E = layer.W @ h + layer.b, np.abs(layer.W) @ beta, layer.W @ E
        spread = beta + np.abs(E).sum(axis=1)
        lower, upper = h - spread, h + spread
        found.append((lower, upper))
        if layer.relu:
            h, beta, E = h.copy(), beta.copy(), E.copy()
            for i in range(len(h)):
                k = layer.leak
                if upper[i] <= 0 and lower[i] < 0:
                    h[i], beta[i] = k * h[i], k * beta[i]
                    E[i] = k * E[i]
                elif lower[i] < 0:  # k z + (1 - k) ReLU(z), the latter anything in [0, u]
                    h[i], beta[i] = k * h[i] + (1 - k) * upper[i] / 2, k * beta[i] + (1 - k) * upper[i] / 2
                    E[i] = k * E[i]
    return found


def _deepz(layers: list[Layer], low: Array, high: Array) -> list[Interval]:
    """Value = h + E e, e in [-1, 1]; an unstable unit adds a column of its own."""
    h, E = (low + high) / 2, np.diag((high - low) / 2)
    found = []
    for layer in layers:
        h, E = layer.W @ h + layer.b, layer.W @ E
        spread = np.abs(E).sum(axis=1)
        lower, upper = h - spread, h + spread
        found.append((lower, upper))
        if layer.relu:
            slope, error = np.ones_like(h), np.zeros_like(h)
            for i, (l, u) in enumerate(zip(lower, upper, strict=True)):  # noqa: E741
                if l < 0 < u:  # between the line through both ends and its parallel through the origin
                    slope[i] = (u - layer.leak * l) / (u - l)
                    error[i] = (slope[i] - layer.leak) * -l / 2
                elif l < 0:
                    slope[i] = layer.leak
            h, E = slope * h + error, np.hstack([slope[:, None] * E, np.diag(error)])
    return found


def _crown(layers: list[Layer], low: Array, high: Array) -> list[Interval]:
    found: list[Interval] = []
    for k in range(len(layers)):
        found.append(_back_substitute(layers[: k + 1], found, low, high))
    return found


def _crown_ibp(layers: list[Layer], low: Array, high: Array) -> list[Interval]:
    found = _ibp(layers[:-1], low, high)
    return [*found, _back_substitute(layers, found, low, high)]


def _back_substitute(layers: list[Layer], known: list[Interval], low: Array, high: Array) -> Interval:
    """Two linear functions of the input around the last layer's output, each bounded over the box."""
    A_low = A_up = layers[-1].W
    c_low = c_up = layers[-1].b
    for layer, (lower, upper) in zip(reversed(layers[:-1]), reversed(known), strict=True):
        if layer.relu:
            up_slope, up_shift, low_slope = np.zeros_like(lower), np.zeros_like(lower), np.zeros_like(lower)
            k = layer.leak
            for i, (l, u) in enumerate(zip(lower, upper, strict=True)):  # noqa: E741
                if l >= 0:
                    up_slope[i] = low_slope[i] = 1
                elif u > 0:
                    up_slope[i], up_shift[i] = (u - k * l) / (u - l), -(1 - k) * u * l / (u - l)
                    low_slope[i] = 1 if u > -l else k
                else:
                    up_slope[i] = low_slope[i] = k
            c_low = c_low + np.minimum(A_low, 0) @ up_shift
            c_up = c_up + np.maximum(A_up, 0) @ up_shift
            A_low = np.maximum(A_low, 0) * low_slope + np.minimum(A_low, 0) * up_slope
            A_up = np.maximum(A_up, 0) * up_slope + np.minimum(A_up, 0) * low_slope
        c_low, c_up = c_low + A_low @ layer.b, c_up + A_up @ layer.b
        A_low, A_up = A_low @ layer.W, A_up @ layer.W
    return (
        c_low + np.maximum(A_low, 0) @ low + np.minimum(A_low, 0) @ high,
        c_up + np.maximum(A_up, 0) @ high + np.minimum(A_up, 0) @ low,
    )
