"""Linear functions of the input that enclose the outputs, in the units of the data."""

from typing import NamedTuple

from torch import Tensor

from glsk.network import Chain
from glsk.ops.crown_pass import Function, Linear


class LinearBounds(NamedTuple):
    """``lower_A x + lower_b <= C f(x) <= upper_A x + upper_b`` for every x of the box, in the units of the data.

    Attributes:
        lower_A, upper_A: [P, B, S, *input_shape] (without P if ``params`` was omitted); A x sums over the input's axes.
        lower_b, upper_b: [P, B, S]. The upper ones are None where no upper bound was wanted.
    """

    lower_A: Tensor
    lower_b: Tensor
    upper_A: Tensor | None
    upper_b: Tensor | None


def in_data_units(chain: Chain, functions: Linear, single: bool) -> LinearBounds:
    """Functions of the normalised, flat input as those of x; ``single`` drops the axis of members."""
    found: list[Tensor | None] = []
    for function in functions:
        if function is None:
            found += (None, None)
        else:
            A, b = _unnormalised(chain, function)
            found += (A[0], b[0]) if single else (A, b)
    lower_A, lower_b, *upper = found
    assert lower_A is not None
    assert lower_b is not None
    return LinearBounds(lower_A, lower_b, *upper)


def _unnormalised(chain: Chain, function: Function) -> Function:
    """A (x - mean) / std + b = (A / std) x + (b - A mean / std)."""
    A, b = function[0].unflatten(-1, chain.input_shape), function[1]
    if chain.normalize is None:
        return A, b
    shape = (-1, 1, 1) if len(chain.input_shape) == 3 else (-1,)
    mean, std = (t.to(A).view(shape) for t in (chain.normalize.mean, chain.normalize.std))
    A = A / std
    return A, b - (A * mean).flatten(3).sum(-1)
