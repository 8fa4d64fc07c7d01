"""Small fully connected networks in rational arithmetic: what float64 bounds are held to."""

import itertools
from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor, nn

Vector = list[Fraction]


def rational(values: Tensor) -> Vector:
    """The numbers that a 1-d tensor holds, exactly."""
    return [Fraction(value) for value in values.tolist()]


class Exact:
    """An ``nn.Sequential`` of Linear, ReLU and LeakyReLU, every weight the rational number that its float is."""

    def __init__(self, net: nn.Sequential) -> None:
        self.weights: list[list[Vector]] = []
        self.biases: list[Vector] = []
        self.leaks: list[Fraction | None] = []
        for module in net:
            if isinstance(module, nn.Linear):
                self.weights.append([rational(row) for row in module.weight.detach()])
                zeros = torch.zeros(module.out_features)
                self.biases.append(rational(zeros if module.bias is None else module.bias.detach()))
                self.leaks.append(None)
            elif isinstance(module, nn.ReLU | nn.LeakyReLU):
                self.leaks[-1] = Fraction(getattr(module, "negative_slope", 0.0))
            elif not isinstance(module, nn.Flatten):
                raise TypeError(type(module))

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
        self, row: Vector, bounds: list[tuple[Vector, Vector]], low: Vector, high: Vector, rule: str
    ) -> Fraction:
        """CROWN's (rule "adaptive") or DeepZ's ("parallel") lower bound of a row of the outputs by hidden bounds."""
        constant = Fraction(0)
        for k in reversed(range(len(self.weights))):
            constant += dot(row, self.biases[k])
            row = [dot(row, column) for column in zip(*self.weights[k], strict=True)]
            if k and self.leaks[k - 1] is not None:
                lines = [self._line(k - 1, a, *ends, rule) for a, *ends in zip(row, *bounds[k - 1], strict=True)]
                constant += dot(row, [intercept for _, intercept in lines])
                row = [a * slope for a, (slope, _) in zip(row, lines, strict=True)]
        return constant + sum(a * (low if a >= 0 else high) for a, low, high in zip(row, low, high, strict=True))

    def _line(self, k: int, a: Fraction, low: Fraction, high: Fraction, rule: str) -> tuple[Fraction, Fraction]:
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
            slope, intercept = (chord if rule == "parallel" else Fraction(int(high > -low))), Fraction(0)
        return (1 - leak) * slope + leak, (1 - leak) * intercept


def dot(a: Sequence[Fraction], b: Sequence[Fraction]) -> Fraction:
    return sum((x * y for x, y in zip(a, b, strict=True)), Fraction(0))


def ranges(net: Exact, low: Vector, high: Vector) -> list[list[tuple[Fraction, Fraction]]]:
    """The exact range of every unit of every affine layer on the segment from ``low`` to ``high``.

    All are piecewise linear functions of one number: a layer's kinks are those before it and where its units cross 0.
    """

    def at(t: Fraction) -> list[Vector]:
        return net.values([a + t * (b - a) for a, b in zip(low, high, strict=True)])

    points = [Fraction(0), Fraction(1)]
    for k in range(len(net.weights) - 1):
        known = [(t, at(t)[k]) for t in points]
        for (t0, v0), (t1, v1) in itertools.pairwise(known):
            points += [t0 + (t1 - t0) * a / (a - b) for a, b in zip(v0, v1, strict=True) if a * b < 0]
        points = sorted(set(points))
    found = [at(t) for t in points]
    return [
        [(min(v[k][i] for v in found), max(v[k][i] for v in found)) for i in range(len(net.weights[k]))]
        for k in range(len(net.weights))
    ]
