"""DeepZ: zonotopes (Singh et al., 2018), which back-substitute as CROWN does, with parallel lines."""

from collections.abc import Iterator

from glsk.bounds.crown import hidden
from glsk.bounds.query import Bounds, Query
from glsk.bounds.registry import relaxation


@relaxation("DeepZ", linear=True)
def deepz(query: Query) -> Iterator[Bounds]:
    """One pass a layer, then one for the specification."""
    inner = yield from hidden(query, "parallel")
    yield query.crown_spec(inner, "parallel")
