"""IBP: interval bound propagation (paper, §2.2; Gowal et al., 2018)."""

from collections.abc import Generator, Iterator
from functools import partial

from glsk.bounds.query import Bounds, Query
from glsk.bounds.registry import relaxation


@relaxation("IBP")
def ibp(query: Query) -> Iterator[Bounds]:
    """Boxes, layer by layer."""
    box = yield from ibp_hidden(query)
    yield query.spec(box)


def ibp_hidden(query: Query) -> Generator[Bounds, None, Bounds]:
    """Layers 0..K-1; returns the box that reaches layer K."""
    box = (query.x_L, query.x_U)
    for k in range(query.last):
        box = query.hidden(k, partial(query.ibp, k, box, query.relu_before(k)))
        yield box
    return query.activated(query.last - 1, box) if query.last else box
