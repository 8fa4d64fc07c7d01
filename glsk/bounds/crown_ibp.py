"""CROWN-IBP: ReLU bounds by IBP, only the specification back-substituted (paper, §2.2; Zhang et al., 2020)."""

from collections.abc import Iterator

from glsk.bounds.ibp import ibp_hidden
from glsk.bounds.query import Bounds, Query
from glsk.bounds.registry import relaxation


@relaxation("CROWN-IBP", linear=True)
def crown_ibp(query: Query) -> Iterator[Bounds]:
    """IBP's pre-activations, then one DeepPoly pass for the specification."""
    inner: list[Bounds] = []
    for bounds in ibp_hidden(query):
        inner.append(bounds)
        yield bounds
    yield query.crown_spec(inner)
