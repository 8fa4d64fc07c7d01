"""DeepPoly, which is CROWN: back-substitution of every layer with DeepPoly bounds of all earlier ones (paper, §2.2)."""

from collections.abc import Iterator

from glsk.bounds.query import Bounds, Query
from glsk.bounds.registry import relaxation


@relaxation("CROWN", "DeepPoly")
def deeppoly(query: Query) -> Iterator[Bounds]:
    """One pass a layer, then one for the specification."""
    inner: list[Bounds] = []
    for k in range(query.last):
        inner.append(_hidden(query, k, inner))
        yield inner[-1]
    yield query.crown_spec(inner)


def _hidden(query: Query, k: int, inner: list[Bounds]) -> Bounds:
    if not query.layers[k].relu:
        return query.unbounded  # later passes go through it exactly
    if k == 0:
        return query.ibp(0, (query.x_L, query.x_U), relu=False)  # back-substitution through one layer
    # A row that interval arithmetic from the layer before proves stable needs no back-substitution: that is exact
    # for its own ReLU, whose relaxation is then the function itself.
    known = query.ibp(k, inner[-1], relu=True) if query.prune and query.relu_before(k) else None
    return query.crown(k, inner, known)
