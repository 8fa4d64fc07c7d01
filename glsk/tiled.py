"""A query computed tile by tile, within a memory limit."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from glsk import bounds, ops, tiling, workspace
from glsk.bounds import Bounds, Query
from glsk.ops.crown_pass import Linear

Found = TypeVar("Found")


def output_bounds(method: str, query: Query, memory_limit: int) -> tuple[Tensor, Tensor | None]:
    """Bounds of the specification (or the logits), [P, B, S]; the upper one None where it is not wanted."""
    members, samples = query.population.size, query.x_L.shape[1]
    rows = query.layers[-1].out_features if query.C is None else query.C.shape[1]
    whole = [tiling.Tile(0, members, 0, samples)]  # needs no memory but a thread's scratch
    tiles, need = (whole, None) if bounds.in_one_op(method, query) else _tiles(method, query, memory_limit)
    if tiles == whole:
        with _granted(need, tiles[0], memory_limit):
            least, most = bounds.output_bounds(method, query)
        return least, most if query.bound_upper else None
    lower = query.x_L.new_empty(members, samples, rows)
    upper = torch.empty_like(lower) if query.bound_upper else None
    again = _again(tiles, need)
    for tile in tiles:
        part = slice(tile.p0, tile.p1), slice(tile.b0, tile.b1)
        one = partial(bounds.output_bounds, method, _cut(query, tile))
        with _granted(need, tile, memory_limit):
            found = _computed(one, again)
            lower[part] = found[0]
            if upper is not None:
                upper[part] = found[1]
            del found  # before the next tile's bounds are made
    return lower, upper


def linear_bounds(method: str, query: Query, memory_limit: int) -> tuple[Tensor, Tensor | None, Linear]:
    """As :func:`output_bounds`, and the functions of the normalised input they come of: A [P, B, S, n], b [P, B, S]."""
    query = replace(query, linear=[])
    members, samples = query.population.size, query.x_L.shape[1]
    rows = query.layers[-1].out_features if query.C is None else query.C.shape[1]
    tiles, need = _tiles(method, query, memory_limit)
    empty, inputs = query.x_L.new_empty, query.layers[0].in_features
    sides = 1 + query.bound_upper
    ends = [empty(members, samples, rows) for _ in range(sides)]
    slopes = [empty(members, samples, rows, inputs) for _ in range(sides)]
    constants = [empty(members, samples, rows) for _ in range(sides)]
    for tile in tiles:
        part = slice(tile.p0, tile.p1), slice(tile.b0, tile.b1)
        cut = replace(_cut(query, tile), linear=[])
        with _granted(need, tile, memory_limit):
            found = bounds.output_bounds(method, cut)
            assert cut.linear
            for side, (end, function) in enumerate(zip(found, cut.linear[0], strict=True)):
                if function is not None:
                    ends[side][part], slopes[side][part], constants[side][part] = end, *function
    functions = list(zip(slopes, constants, strict=True))
    if sides == 1:
        return ends[0], None, (functions[0], None)
    return ends[0], ends[1], (functions[0], functions[1])


def hidden_bounds(method: str, query: Query, memory_limit: int) -> dict[int, Bounds]:
    """Number of the layer -> bounds [P, B, n] of its outputs, for every layer that an activation follows."""
    query = replace(query, C=None)
    members, samples = query.population.size, query.x_L.shape[1]
    whole = [tiling.Tile(0, members, 0, samples)]
    one = bounds.in_one_op(method, query)
    tiles, need = (whole, None) if one else _tiles(method, query, memory_limit)
    empty = query.x_L.new_empty
    found = {
        k: (empty(members, samples, layer.out_features), empty(members, samples, layer.out_features))
        for k, layer in enumerate(query.layers)
        if layer.relu
    }
    again = _again(tiles, need)
    for tile in tiles:
        part = slice(tile.p0, tile.p1), slice(tile.b0, tile.b1)
        each = partial(bounds.hidden_bounds, method, _cut(query, tile))
        with _granted(need, tile, memory_limit):
            # All layers at once only where they are computed twice: else each goes as the next one comes.
            inner: Iterable[Bounds] = _computed(partial(_listed, each), True) if again else each()
            for k, (lower, upper) in enumerate(inner):
                if k in found:
                    found[k][0][part], found[k][1][part] = lower, upper
        del inner
    return found


def _tiles(method: str, query: Query, memory_limit: int) -> tuple[list[tiling.Tile], tiling.Footprint]:
    samples, dtype, backend = query.x_L.shape[1], query.x_L.dtype, query.backend
    spec_rows = None if query.C is None else query.C.shape[1]
    gradient = bounds.wants_gradient(query)
    need = tiling.footprint(query.layers, spec_rows, backend, query.x_L.device, dtype, samples, gradient)
    optimised = method == "alpha-CROWN" and not ops.optimised_pass.implemented(backend)
    if optimised or query.linear is not None or (query.constraints is not None and query.constraints.lines):
        # Passes that every backend leaves to plain PyTorch.
        rows = query.layers[-1].out_features if query.C is None else query.C.shape[1]
        plain = tiling.bytes_per_pair(query.layers, rows, "reference", dtype.itemsize, optimised)
        need = replace(need, per_pair=max(need.per_pair, plain))
        backend = "reference" if backend == "cpu" else backend
    members = query.population.size
    kept = members * samples * need.saved
    together = replace(need, fixed=need.fixed + kept, per_pair=need.per_pair - need.saved, saved=0)
    if backend != "cpu" and kept <= workspace.HIDDEN_SHARE * memory_limit and together.least <= memory_limit:
        need = together  # there is room for what all tiles keep
    return list(tiling.tiles(members, samples, need, memory_limit, backend)), need


def _listed(each: Callable[[], Iterator[Found]]) -> list[Found]:
    return list(each())


def _again(tiles: list[tiling.Tile], need: tiling.Footprint | None) -> bool:
    """Whether tiles are computed once more on the way back, because all their hidden bounds together are too many.

    ``torch.func`` and ``torch.compile`` keep them all the same: what they keep cannot be replaced.
    """
    traced = torch._C._are_functorch_transforms_active() or torch.compiler.is_compiling()
    return need is not None and need.saved > 0 and len(tiles) > 1 and not traced


def _computed(run: Callable[[], Found], again: bool) -> Found:
    """What ``run`` returns; with ``again`` nothing of it is kept, and the gradient begins with another run."""
    found: Found = checkpoint(run, use_reentrant=False, preserve_rng_state=False) if again else run()
    return found


@contextlib.contextmanager
def _granted(need: tiling.Footprint | None, tile: tiling.Tile, memory_limit: int) -> Iterator[None]:
    """Grant what the limit leaves for the scratch of programs, beside the tile's bounds."""
    taken = 0 if need is None else need.bounds(tile.p1 - tile.p0, tile.b1 - tile.b0)
    try:
        with workspace.grant(memory_limit - taken):
            yield
    except torch.OutOfMemoryError as error:
        error.add_note(f"glsk: the device has no room; give compute_bounds a memory_limit below {memory_limit} bytes")
        raise


def _cut(query: Query, tile: tiling.Tile) -> Query:
    samples = slice(tile.b0, tile.b1)
    boxes = slice(tile.p0, tile.p1) if len(query.x_L) > 1 else slice(None)  # members' own, or one for all
    return replace(
        query,
        population=query.population.slice(tile.p0, tile.p1),
        x_L=query.x_L[boxes, samples],
        x_U=query.x_U[boxes, samples],
        C=None if query.C is None else query.C[samples],
        constraints=None if query.constraints is None else query.constraints.part(slice(tile.p0, tile.p1), samples),
    )
