"""The output's bounds alone, by the quickest way a backend has."""

import torch

from glsk import ops
from glsk.bounds.query import Bounds, Query
from glsk.bounds.registry import canonical_method, get
from glsk.geometry import encode
from glsk.ops.chain_bounds import METHODS


def output_bounds(method: str, query: Query) -> Bounds:
    """What the relaxation ``method`` yields last: by one op for the whole chain where the backend has it."""
    if in_one_op(method, query):
        lower, upper, _ = ops.chain_bounds(
            query.x_L,
            query.x_U,
            list(query.population.weights),
            list(query.population.biases),
            query.C,
            encode(query.layers),
            [query.leak(k) for k in range(len(query.layers))],
            canonical_method(method),
            query.prune,
            query.bound_upper,
            _wants_gradient(query) and ops.chain_bounds.has_backward(query.backend),
            backend=query.backend,
        )
        return lower, upper
    *_, found = get(method)(query)
    return found


def in_one_op(method: str, query: Query) -> bool:
    """Whether one op serves: hidden bounds then take no memory."""
    method = canonical_method(method)
    if query.backend == "cpu" and (method == "DeepZ" or any(query.leaks)):  # the compiled chain knows neither
        return False
    served = ops.chain_bounds.implemented(query.backend) and method in METHODS
    return served and (query.C is None or query.layers[-1].is_linear)


def _wants_gradient(query: Query) -> bool:
    """Whether hidden bounds are worth keeping for the backward."""
    tensors = (query.x_L, query.x_U, query.C, *query.population.weights, *query.population.biases)
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
