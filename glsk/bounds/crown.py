"""CROWN, which is DeepPoly: back-substitution of every layer with CROWN's bounds of all earlier ones (paper, §2.2)."""

from collections.abc import Generator, Iterator

from glsk.bounds.query import Bounds, Query
from glsk.bounds.registry import relaxation


@relaxation("CROWN", "DeepPoly", linear=True)
def crown(query: Query) -> Iterator[Bounds]:
    """One pass a layer, then one for the specification."""
    inner = yield from hidden(query, "adaptive")
    yield query.crown_spec(inner)


def hidden(query: Query, rule: str) -> Generator[Bounds, None, list[Bounds]]:
    """Layers 0..K-1, each by a pass with lines by ``rule``; returns the bounds of all."""
    inner: list[Bounds] = []
    for k in range(query.last):
        inner.append(_hidden(query, k, inner, rule))
        yield inner[-1]
    return inner


def _hidden(query: Query, k: int, inner: list[Bounds], rule: str) -> Bounds:
    if not query.needs_bounds(k):
        return query.unbounded  # later passes go through it exactly, or by lines that are given
    return query.hidden(k, lambda: _computed(query, k, inner, rule))


def _computed(query: Query, k: int, inner: list[Bounds], rule: str) -> Bounds:
    if k == 0:
        return query.ibp(0, (query.x_L, query.x_U), relu=False)  # back-substitution through one layer
    # A row that interval arithmetic from the layer before proves stable needs no back-substitution: that is exact
    # for its own activation, whose lines are then the function itself.
    prune = query.prune and query.relu_before(k) and query.needs_bounds(k - 1)
    known = query.ibp(k, inner[-1], relu=True) if prune else None
    return query.crown(k, inner, rule, known)
