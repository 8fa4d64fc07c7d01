"""Small networks in rational arithmetic: what float64 bounds are held to."""

import itertools
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor, nn

import glsk
from tests.oracle import conv_matrix

Vector = list[Fraction]
Pair = tuple[int, ...]


def rational(values: Tensor) -> Vector:
    """The numbers that a 1-d tensor holds, exactly."""
    return [Fraction(value) for value in values.tolist()]


class Exact:
    """A chain of affine layers and activations, every number the rational one that its float is.

    Made of an ``nn.Sequential`` of Linear, Conv2d, AvgPool2d, ReLU, LeakyReLU, Normalize, Flatten and BatchNorm in eval
    mode; of the last, 1 / sqrt(var + eps) is rounded to 400 bits.
    """

    def __init__(self, net: nn.Sequential, input_shape: tuple[int, ...] = ()) -> None:
        self.weights: list[list[Vector]] = []
        self.biases: list[Vector] = []
        self.leaks: list[Fraction | None] = []
        shape = input_shape
        for module in net:
            if isinstance(module, nn.ReLU | nn.LeakyReLU):
                self.leaks[-1] = Fraction(getattr(module, "negative_slope", 0.0))
            elif isinstance(module, nn.Linear):
                self._add(module.weight.detach().tolist(), module.bias)
                shape = (module.out_features,)
            elif isinstance(module, nn.Conv2d):
                sides = (module.stride, module.padding, module.kernel_size)
                dense = conv_matrix(module.weight.detach().numpy(), shape[1:], *sides[:2])
                shape = (module.out_channels, *_size(shape, *sides))
                bias = module.bias if module.bias is None else module.bias.repeat_interleave(shape[1] * shape[2])
                self._add(dense.tolist(), bias)
            elif isinstance(module, nn.AvgPool2d):
                k = module.kernel_size
                windows = np.einsum("ij,kl->ijkl", np.eye(shape[0]), np.ones((k, k)))
                dense = conv_matrix(windows, shape[1:], (k, k), (0, 0))
                shape = (shape[0], *_size(shape, (k, k), (0, 0), (k, k)))
                self._add(dense.tolist(), None)
                self.weights[-1] = [[w / (k * k) for w in row] for row in self.weights[-1]]
            elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                self._fold(module, len(self.biases[-1]) // module.num_features)
            elif isinstance(module, glsk.Normalize):
                n = math.prod(shape) // len(module.mean)
                means, stds = (rational(t.repeat_interleave(n)) for t in (module.mean, module.std))
                rows = range(len(means))
                self.weights.append([[1 / stds[i] if i == j else Fraction(0) for j in rows] for i in rows])
                self.biases.append([-m / s for m, s in zip(means, stds, strict=True)])
                self.leaks.append(None)
            elif not isinstance(module, nn.Flatten):
                raise TypeError(type(module))

    def _add(self, rows: list[list[float]], bias: Tensor | None) -> None:
        self.weights.append([[Fraction(w) for w in row] for row in rows])
        self.biases.append([Fraction(0)] * len(rows) if bias is None else rational(bias.detach()))
        self.leaks.append(None)

    def _fold(self, module: nn.BatchNorm1d | nn.BatchNorm2d, pixels: int) -> None:
        ones = torch.ones(module.num_features)
        given = (module.running_mean, module.running_var, module.weight, module.bias)
        spare = (0 * ones, ones, ones, 0 * ones)
        mean, var, gain, shift = (rational((s if t is None else t).detach()) for t, s in zip(given, spare, strict=True))
        scale = [g * _root(v + Fraction(module.eps)) for g, v in zip(gain, var, strict=True)]
        for i in range(len(self.biases[-1])):
            c = i // pixels
            self.weights[-1][i] = [w * scale[c] for w in self.weights[-1][i]]
            self.biases[-1][i] = (self.biases[-1][i] - mean[c]) * scale[c] + shift[c]

    def layer(self, k: int, values: Vector) -> Vector:
        """The outputs of affine layer k."""
        return [dot(row, values) + b for row, b in zip(self.weights[k], self.biases[k], strict=True)]

    def activate(self, k: int, values: Vector) -> Vector:
        leak = self.leaks[k]
        return values if leak is None else [v if v >= 0 else leak * v for v in values]

    def values(self, x: Sequence[Fraction]) -> list[Vector]:
        """The outputs of every affine layer at a point."""
        found, now = [], list(x)
        for k in range(len(self.weights)):
            found.append(self.layer(k, now))
            now = self.activate(k, found[-1])
        return found

    def formula(
        self,
        row: Vector,
        bounds: list[tuple[Vector, Vector]],
        low: Vector,
        high: Vector,
        rule: str,
        duals: list[Vector] | None = None,
        splits: list[list[int]] | None = None,
    ) -> Fraction:
        """A lower bound of a row of the outputs by hidden bounds.

        ``rule``: CROWN's ("adaptive") or DeepZ's ("parallel") lower lines, or ("duals") lower slopes that are given,
        with multipliers in the place of the slopes of units that are split.
        """
        constant = Fraction(0)
        for k in reversed(range(len(self.weights))):
            constant += dot(row, self.biases[k])
            row = [dot(row, column) for column in zip(*self.weights[k], strict=True)]
            if k and self.leaks[k - 1] is not None:
                size = len(row)
                signs = [0] * size if splits is None else splits[k - 1]
                dual = [Fraction(0)] * size if duals is None else duals[k - 1]
                ends = [_split(*given) for given in zip(*bounds[k - 1], signs, strict=True)]
                lines = [self._line(k - 1, row[i], *ends[i], rule, dual[i]) for i in range(size)]
                constant += dot(row, [intercept for _, intercept in lines])
                row = [a * slope - s * b for a, (slope, _), s, b in zip(row, lines, signs, dual, strict=True)]
        return constant + sum(a * (low if a >= 0 else high) for a, low, high in zip(row, low, high, strict=True))

    def _line(
        self, k: int, a: Fraction, low: Fraction, high: Fraction, rule: str, alpha: Fraction
    ) -> tuple[Fraction, Fraction]:
        leak = self.leaks[k]
        assert leak is not None
        if low >= 0:
            return Fraction(1), Fraction(0)
        if high <= 0:
            return leak, Fraction(0)
        chord = high / (high - low)
        if a < 0:
            slope, intercept = chord, -chord * low
        else:
            slopes = {"parallel": chord, "adaptive": Fraction(int(high > -low)), "duals": alpha}
            slope, intercept = slopes[rule], Fraction(0)
        return (1 - leak) * slope + leak, (1 - leak) * intercept


def _split(low: Fraction, high: Fraction, sign: int) -> tuple[Fraction, Fraction]:
    """Bounds that make a split unit's lines exact."""
    return (low, high) if sign == 0 else (Fraction(1), Fraction(2)) if sign > 0 else (Fraction(-2), Fraction(-1))


def _size(shape: tuple[int, ...], stride: Pair, padding: Pair, kernel: Pair) -> Pair:
    return tuple((n + 2 * p - k) // s + 1 for n, p, k, s in zip(shape[1:], padding, kernel, stride, strict=True))


def _root(value: Fraction) -> Fraction:
    """1 / sqrt(value)."""
    bits = 1 << 800
    return Fraction(math.isqrt(value.denominator * bits // value.numerator), 1 << 400)


def dot(a: Sequence[Fraction], b: Sequence[Fraction]) -> Fraction:
    return sum((x * y for x, y in zip(a, b, strict=True)), Fraction(0))


def kinks(net: Exact, low: Vector, high: Vector) -> list[list[Vector]]:
    """The outputs of all layers at the ends of the segment from ``low`` to ``high`` and at all kinks in between.

    They are piecewise linear functions of one number: a layer's kinks are those before it and where its units cross 0.
    """

    def at(t: Fraction) -> list[Vector]:
        return net.values([a + t * (b - a) for a, b in zip(low, high, strict=True)])

    points = [Fraction(0), Fraction(1)]
    for k in range(len(net.weights) - 1):
        known = [(t, at(t)[k]) for t in points]
        for (t0, v0), (t1, v1) in itertools.pairwise(known):
            points += [t0 + (t1 - t0) * a / (a - b) for a, b in zip(v0, v1, strict=True) if a * b < 0]
        points = sorted(set(points))
    return [at(t) for t in points]


def ranges(net: Exact, low: Vector, high: Vector) -> list[list[tuple[Fraction, Fraction]]]:
    """The exact range of every unit of every affine layer on the segment."""
    found = kinks(net, low, high)
    return [
        [(min(v[k][i] for v in found), max(v[k][i] for v in found)) for i in range(len(net.weights[k]))]
        for k in range(len(net.weights))
    ]


def border(truth: Fraction) -> tuple[float, float]:
    """The greatest float below a number, or it, and the least one above."""
    near = float(truth)
    below = near if Fraction(near) <= truth else math.nextafter(near, -math.inf)
    return below, near if Fraction(near) >= truth else math.nextafter(near, math.inf)
