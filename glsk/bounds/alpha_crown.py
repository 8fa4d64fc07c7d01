"""alpha-CROWN: CROWN's hidden bounds, then lower slopes optimised for every row of C (Xu et al., 2021)."""

from collections.abc import Iterator

from glsk.bounds.crown import hidden
from glsk.bounds.query import Bounds, Query
from glsk.bounds.registry import relaxation


@relaxation("alpha-CROWN", linear=True, differentiable=False)
def alpha_crown(query: Query) -> Iterator[Bounds]:
    """One pass a layer, then ``query.iterations`` for the specification: never looser than CROWN, no gradient."""
    inner = yield from hidden(query, "adaptive")
    yield query.optimised_spec(inner)
