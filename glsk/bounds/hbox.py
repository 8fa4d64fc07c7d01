"""HBox: the hybrid zonotope with box ReLUs (paper, §2.2; Mirman et al., 2018), in back-substitution form.

A value is h + E e + beta b with e, b in [-1, 1]: E its exact dependence on the input, beta an uncorrelated box. Only
the interval [h - beta, h + beta] is carried forward; sum |E| of a row is recovered by back-substituting the row through
the ReLUs that kept E, the stable-active ones. A leaky ReLU of slope k below zero is k z + (1 - k) ReLU(z): every unit
keeps k E, and its box is mixed likewise.
"""

from collections.abc import Callable, Iterator
from functools import partial

from glsk import ops
from glsk.bounds.query import Bounds, Query
from glsk.bounds.registry import relaxation
from glsk.ops import interval


@relaxation("HBox")
def hbox(query: Query) -> Iterator[Bounds]:
    """One one-sided pass a layer, with the uncorrelated box carried forwards beside it."""
    center = interval.center(query.x_L, query.x_U)
    box: Bounds = (center, center)
    inner: list[Bounds] = []
    for k in range(query.last):
        if k == 0:  # nothing is lost yet: IBP's bounds, and a box that is a point
            first = query.ibp(0, (query.x_L, query.x_U), relu=False)
            center = interval.center(*first)
            box = (center, center)
            inner.append(query.hidden(k, _constant(first)))
        else:
            box = query.ibp(k, box, relu=False)
            inner.append(query.hidden(k, partial(_with_radius, query, k, box, inner)))
        yield inner[-1]
        if query.layers[k].relu:
            box = ops.hbox_relu(*box, *inner[-1], query.leak(k), backend=query.backend)
    lower, upper = query.spec(box)
    radius = query.hbox_radius(query.last, inner)
    yield lower - radius, upper + radius if query.bound_upper else upper


def _constant(bounds: Bounds) -> Callable[[], Bounds]:
    return lambda: bounds


def _with_radius(query: Query, k: int, box: Bounds, inner: list[Bounds]) -> Bounds:
    """Layer k's bounds: its box, and what is still an exact function of the input."""
    radius = query.hbox_radius(k, inner)
    return box[0] - radius, box[1] + radius
