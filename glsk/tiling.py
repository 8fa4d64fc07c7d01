"""How a call is cut along P and B, so that its memory stays under a limit and its working set near the cores."""

from collections.abc import Iterator
from dataclasses import dataclass

from glsk.geometry import Geometry

# A tile's bounds should stay in a CPU's shared cache between one pass and the next.
CPU_TILE_BYTES = 16 << 20


@dataclass(frozen=True)
class Tile:
    """Members ``p0:p1``, samples ``b0:b1``."""

    p0: int
    p1: int
    b0: int
    b1: int


def bytes_per_pair(layers: tuple[Geometry, ...], rows: int, backend: str, itemsize: int) -> int:
    """Peak memory of one (member, sample): every layer's bounds, plus what the backend's passes hold."""
    units = [layer.out_features for layer in layers]
    values = 2 * sum(units) + 4 * max(units)
    if backend == "reference":
        # rows, their positive and negative parts and the product, of the heaviest pass
        inputs = [layer.in_features for layer in layers]
        widest = max(max(units[:-1], default=0), rows)
        values += 6 * widest * max(inputs + units[:-1])
    if backend == "triton":
        # slopes and intercepts of a pass, and the list of its rows; coefficients lie in scratch of a fixed size
        values += 2 * sum(units) + max(units)
    return values * itemsize


def tiles(members: int, samples: int, per_pair: int, memory_limit: int, backend: str) -> Iterator[Tile]:
    """Cover [members, samples]; a tile holds whole batches where they fit, else a part of one member's batch."""
    budget = memory_limit if backend != "cpu" else min(memory_limit, CPU_TILE_BYTES)
    pairs = max(1, budget // per_pair)
    b_step = min(samples, pairs)
    p_step = min(members, max(1, pairs // b_step))
    for p0 in range(0, members, p_step):
        for b0 in range(0, samples, b_step):
            yield Tile(p0, min(p0 + p_step, members), b0, min(b0 + b_step, samples))
