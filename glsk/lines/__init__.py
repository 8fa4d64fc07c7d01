"""The lines of a unit: a lower and an upper line around its activation, one choice a file.

``lower_slope * z + lower_intercept <= act(z) <= upper_slope * z + upper_intercept`` for all z in [lower, upper], in one
tensor [.., 4, n] in that order. A choice is a pure function of bounds [.., n] that knows the ReLU alone; :func:`make`
carries its lines over to a leaky one. A back-substitution pass needs nothing else of an activation.
"""

from collections.abc import Callable

from torch import Tensor

from glsk.lines.adaptive import adaptive
from glsk.lines.free import free
from glsk.lines.leaky import leaky
from glsk.lines.mask import mask
from glsk.lines.parallel import parallel

RULES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"adaptive": adaptive, "parallel": parallel, "mask": mask}
"""The choices that bounds alone decide, by the name that a pass knows them by."""


def make(rule: str, lower: Tensor, upper: Tensor, leak: float = 0.0) -> Tensor:
    """Lines by one of :data:`RULES` of an activation of slope ``leak`` below zero: bounds [.., n] -> [.., 4, n]."""
    return leaky(RULES[rule](lower, upper), leak)


__all__ = ["RULES", "adaptive", "free", "leaky", "make", "mask", "parallel"]
