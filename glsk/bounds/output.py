"""The output's bounds alone, by the quickest way a backend has."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from typing import Any

import torch

from glsk import ops, workspace
from glsk.bounds.query import Bounds, Query
from glsk.bounds.registry import canonical_method, get
from glsk.geometry import encode
from glsk.ops.chain_bounds import METHODS


def output_bounds(method: str, query: Query) -> Bounds:
    """What the relaxation ``method`` yields last: by one op for the whole chain where the backend has it."""
    if in_one_op(method, query):
        if len(query.x_L) > 1:  # the op takes one box for all members
            parts = [output_bounds(method, _member(query, p)) for p in range(query.population.size)]
            return torch.cat([lower for lower, _ in parts]), torch.cat([upper for _, upper in parts])
        keep = ops.chain_bounds.has_backward(query.backend) and wants_gradient(query) and _room(query)
        lower, upper, _ = ops.chain_bounds(*_operands(method, query), keep, backend=query.backend)
        return lower, upper
    *_, found = get(method)(query)
    return found


def hidden_bounds(method: str, query: Query) -> Iterator[Bounds]:
    """Bounds of layers 0..K-1 in order, never pruned; of a layer that no activation follows, anything."""
    query = replace(query, prune=False, C=None)
    if len(query.x_L) > 1 or not in_one_op(method, query):
        yield from islice(get(method)(query), query.last)
        return
    _, _, hidden = ops.chain_bounds(*_operands(method, query), True, backend=query.backend)
    for part in hidden.split([layer.out_features for layer in query.layers[:-1]], dim=3):
        lower, upper = part.unbind(2)
        yield lower, upper


def in_one_op(method: str, query: Query) -> bool:
    """Whether one op serves: hidden bounds then take no memory, or only that of the result."""
    method = canonical_method(method)
    if query.constraints is not None or query.linear is not None:
        return False
    served = ops.chain_bounds.implemented(query.backend) and method in METHODS
    return served and (query.C is None or query.layers[-1].is_linear)


def _member(query: Query, p: int) -> Query:
    """One member with its own box."""
    one = slice(p, p + 1)
    return replace(query, population=query.population.slice(p, p + 1), x_L=query.x_L[one], x_U=query.x_U[one])


def _operands(method: str, query: Query) -> Sequence[Any]:
    """What the op for the whole chain is given, but for ``keep``."""
    return (
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
    )


def _room(query: Query) -> bool:
    """Whether hidden bounds may be kept: else the backward computes them again, part by part."""
    units = sum(layer.out_features for layer in query.layers[:-1])
    size = 2 * units * query.population.size * query.x_L.shape[1] * query.x_L.element_size()
    limit = workspace.granted()
    return limit is None or size <= workspace.HIDDEN_SHARE * limit


def wants_gradient(query: Query) -> bool:
    """Whether anything will ask for a gradient of the query's bounds."""
    known = query.constraints
    given = () if known is None else (*chain(*known.intermediate.values()), *known.lines.values())
    tensors = (query.x_L, query.x_U, query.C, *query.population.weights, *query.population.biases, *given)
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
