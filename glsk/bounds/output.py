"""The output's bounds alone, by the quickest way a backend has."""

from glsk import ops
from glsk.bounds.query import Bounds, Query
from glsk.bounds.registry import canonical_method, get
from glsk.geometry import encode
from glsk.ops.chain_bounds import METHODS


def output_bounds(method: str, query: Query) -> Bounds:
    """What the relaxation ``method`` yields last: by one op for the whole chain where the backend has it."""
    if in_one_op(method, query):
        return ops.chain_bounds(
            query.x_L,
            query.x_U,
            list(query.population.weights),
            list(query.population.biases),
            query.C,
            encode(query.layers),
            canonical_method(method),
            query.prune,
            query.bound_upper,
            backend=query.backend,
        )
    *_, found = get(method)(query)
    return found


def in_one_op(method: str, query: Query) -> bool:
    """Whether one op serves: hidden bounds then take no memory."""
    served = ops.chain_bounds.implemented(query.backend) and canonical_method(method) in METHODS
    return served and (query.C is None or query.layers[-1].is_linear)
