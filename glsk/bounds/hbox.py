"""HBox: the hybrid zonotope with box ReLUs (paper, §2.2; Mirman et al., 2018), in back-substitution form.

A value is h + E e + beta b with e, b in [-1, 1]: E its exact dependence on the input, beta an uncorrelated box. Only
the interval [h - beta, h + beta] is carried forward; sum |E| of a row is recovered by back-substituting the row through
the ReLUs that kept E, the stable-active ones.
"""

from collections.abc import Iterator

from glsk import ops
from glsk.bounds.query import Bounds, Query
from glsk.bounds.registry import relaxation


@relaxation("HBox")
def hbox(query: Query) -> Iterator[Bounds]:
    """One one-sided pass a layer, with the uncorrelated box carried forwards beside it."""
    center = (query.x_L + query.x_U) / 2
    box: Bounds = (center, center)
    inner: list[Bounds] = []
    for k in range(query.last):
        if k == 0:  # nothing is lost yet: IBP's bounds, and a box that is a point
            inner.append(query.ibp(0, (query.x_L, query.x_U), relu=False))
            center = (inner[0][0] + inner[0][1]) / 2
            box = (center, center)
        else:
            box = query.ibp(k, box, relu=False)
            radius = query.hbox_radius(k, inner)
            inner.append((box[0] - radius, box[1] + radius))
        yield inner[-1]
        if query.layers[k].relu:
            box = ops.hbox_relu(*box, *inner[-1], backend=query.backend)
    lower, upper = query.spec(box)
    radius = query.hbox_radius(query.last, inner)
    yield lower - radius, upper + radius if query.bound_upper else upper
