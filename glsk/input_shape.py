"""The shape of one sample, in the forms that callers give it."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from glsk.arguments import FLOATS, dense, describe


def read_input_shape(given: object) -> tuple[int, ...]:
    """The shape of one sample: of a batch x [B, *shape], or given as (features,), (channels, height, width), features.

    Raises:
        TypeError: if it is none of these.
        ValueError: on a wrong number of axes, or a size below 1.
    """
    wanted = "(features,) or (channels, height, width), or a batch x [B, *shape]"
    if isinstance(given, Tensor):
        shape: tuple[object, ...] = tuple(dense("input_shape", given, FLOATS, "float32 or float64").shape[1:])
    elif isinstance(given, int | np.integer) and not isinstance(given, bool):
        shape = (given,)
    elif isinstance(given, Sequence) and not isinstance(given, str | bytes):
        shape = tuple(given)
    else:
        raise TypeError(f"input_shape must be {wanted}, got {describe(given)}")
    whole = [n for n in shape if isinstance(n, int | np.integer) and not isinstance(n, bool) and n >= 1]
    if len(shape) not in (1, 3) or len(whole) != len(shape):
        raise ValueError(f"input_shape must be {wanted}, got {describe(given)}")
    return tuple(int(n) for n in whole)
