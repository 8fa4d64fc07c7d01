"""How a call is cut along P and B, so that its memory stays under a limit and its working set near the cores."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch

from glsk import backends
from glsk.geometry import Geometry
from glsk.workspace import Widest, Workspace

# A tile's bounds should stay in a CPU's shared cache between one pass and the next.
CPU_TILE_BYTES = 16 << 20

SAVED, PENDING = 6, 6
"""Values a hidden unit that autograd keeps for the way back (most for HBox: its boxes before and after the activation,
and bounds), and gradients of them that exist at once."""

TRACED = 8
"""Copies of a pass's coefficients of one layer that autograd through the reference keeps, or makes on the way back."""

PROGRAMS_SHARE = 0.5
"""Of the limit, at most, for the scratch of programs that run at once, beyond the one that there must be."""


@dataclass(frozen=True)
class Tile:
    """Members ``p0:p1``, samples ``b0:b1``."""

    p0: int
    p1: int
    b0: int
    b1: int


@dataclass(frozen=True)
class Footprint:
    """Bytes that a call needs beside inputs and outputs.

    Attributes:
        fixed: for the whole call: its boxes.
        per_pair: of a tile's bounds, for one (member, sample).
        workspace: of the backend's passes.
        saved: of per_pair, what stays until a gradient has been computed; 0 where none is.
    """

    fixed: int
    per_pair: int
    workspace: Workspace | Widest = field(default_factory=Workspace)
    saved: int = 0

    def bounds(self, members: int, samples: int) -> int:
        """Of a tile, without the scratch of programs."""
        pairs = members * samples
        return self.fixed + members * self.workspace.per_member + pairs * (self.per_pair + self.workspace.per_pair)

    @property
    def least(self) -> int:
        """Of one sample of one member."""
        return self.bounds(1, 1) + self.workspace.least(1)

    def fits(self, members: int, samples: int, limit: int) -> bool:
        """Whether a tile fits, with scratch for all programs that its share of the limit has room for."""
        most, least = self.workspace.scratch(members * samples), self.workspace.least(members * samples)
        return self.bounds(members, samples) + max(least, min(most, int(PROGRAMS_SHARE * limit))) <= limit


def footprint(
    layers: tuple[Geometry, ...],
    spec_rows: int | None,
    backend: str,
    device: torch.device,
    dtype: torch.dtype,
    samples: int,
    gradient: bool = False,
) -> Footprint:
    """What bounding ``samples`` samples by any method takes; ``spec_rows``: the rows of C, None for the logits.

    With ``gradient``, enough for the way back too, beside the gradients of what the caller gave.
    """
    rows = layers[-1].out_features if spec_rows is None else spec_rows
    per_pair = bytes_per_pair(layers, rows, backend, dtype.itemsize)
    saved = 0
    if gradient:
        units = sum(layer.out_features for layer in layers[:-1])
        saved = SAVED * units * dtype.itemsize
        per_pair += saved + PENDING * units * dtype.itemsize
        if not backends.has_gradient(backend, "crown_pass"):
            per_pair += traced_bytes_per_pair(layers, rows, dtype.itemsize)
    if backend not in ("cuda", "triton"):
        return Footprint(0, per_pair, saved=saved)
    # To the hidden layers after the first, to C or the logits, and to C merged into the last layer by interval methods.
    passes: list[tuple[tuple[Geometry, ...], int | None]] = [(layers[: k + 1], None) for k in range(1, len(layers) - 1)]
    passes += [(layers, spec_rows), (layers[-1:], spec_rows)]
    found = [backends.pass_workspace(backend, some, spec, device, dtype, gradient) for some, spec in passes]
    boxes = 4 * samples * layers[0].in_features * dtype.itemsize  # two, and what they are made from
    return Footprint(boxes, per_pair, Widest(tuple(found)), saved)


def traced_bytes_per_pair(layers: tuple[Geometry, ...], rows: int, itemsize: int) -> int:
    """What autograd through the reference keeps and makes of one pass, both sides, at most."""
    widths = [layers[0].in_features, *(layer.out_features for layer in layers)]
    passes = [layer.out_features * sum(widths[: k + 1]) for k, layer in enumerate(layers[:-1])]
    return 2 * TRACED * max([*passes, rows * sum(widths)]) * itemsize


def bytes_per_pair(
    layers: tuple[Geometry, ...], rows: int, backend: str, itemsize: int, optimised: bool = False
) -> int:
    """Peak memory of one (member, sample): every layer's bounds, and what the reference's passes hold.

    ``optimised``: with slopes of every row's own, and all of the ascent.
    """
    units = [layer.out_features for layer in layers]
    values = 2 * sum(units) + 4 * max(*units, rows) + 2 * rows
    if backend == "reference":
        # rows, their positive and negative parts and the product, of the heaviest pass
        inputs = [layer.in_features for layer in layers]
        widest_rows = max(max(units[:-1], default=0), rows)
        values += 6 * widest_rows * max(inputs + units[:-1])
        if optimised:
            # coefficients, lines, slopes, Adam's two means and gradients of every layer; the best functions and these
            values += rows * (16 * sum(units[:-1]) + 8 * inputs[0])
    return values * itemsize


def tiles(members: int, samples: int, need: Footprint, memory_limit: int, backend: str) -> Iterator[Tile]:
    """Cover [members, samples]; a tile holds whole batches where they fit, else a part of one member's batch.

    Raises:
        ValueError: if not even one sample of one member fits. On a CPU, where little is asked for, that is computed all
            the same.
    """
    if backend in ("cuda", "triton"):
        limit = memory_limit
        if need.least > limit:
            raise ValueError(
                f"memory_limit: {limit} bytes are too few for one sample of one member on the {backend} backend; "
                f"this call needs at least {need.least} bytes"
            )
    else:
        limit = memory_limit if backend != "cpu" else min(memory_limit, CPU_TILE_BYTES)
    b_step = _most(samples, lambda b: need.fits(1, b, limit))
    p_step = _most(members, lambda p: need.fits(p, b_step, limit)) if b_step == samples else 1
    for p0 in range(0, members, p_step):
        for b0 in range(0, samples, b_step):
            yield Tile(p0, min(p0 + p_step, members), b0, min(b0 + b_step, samples))


def _most(count: int, fits: Callable[[int], bool]) -> int:
    """The largest number up to ``count`` that fits, by bisection; 1 if none does."""
    low, high = 1, count
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
