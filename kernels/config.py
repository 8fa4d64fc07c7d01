"""Tile sizes, chosen by shape: the only place that holds them, as data.

The numbers come from compiled code and the cost model (``python -m bench.cost``); they have not been tuned on a device.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch
import triton

from glsk.geometry import Geometry

TRITON = tuple(int(part) for part in triton.__version__.split(".")[:2])

STEPS = (1, 2, 4)
"""Block sizes tried for a transposed convolution, in positions of the layer's output."""

LOAD_COST = 16.0
"""Multiply-adds, each three tensor-core products, that take as long as loading one coefficient."""


@dataclass(frozen=True)
class Target:
    """What tiles a generation of tensor cores takes.

    Attributes:
        tile_rows: the long side of a product's tile.
        max_block_n: its columns at most.
        max_block_k: its depth, where the depth is cut.
        whole_block_k: up to this depth it is not cut: the weights are then loaded once and stay in shared memory.
        warps: of a program.
        programs: on one multiprocessor.
        scratch_bytes: of a program; all programs' coefficients together should mostly stay in the L2 cache.
    """

    tile_rows: int
    max_block_n: int
    max_block_k: int
    whole_block_k: int
    warps: int
    programs: int
    scratch_bytes: int


HOPPER = Target(128, 64, 32, 64, 8, 1, 256 << 10)
"""Products read their operands from shared memory (wgmma, tcgen05): wide tiles."""

AMPERE = Target(32, 32, 32, 32, 4, 2, 256 << 10)
"""Products read their operands from registers (mma.sync): smaller tiles, or they spill."""


LONE_BLOCK_N = 32 if TRITON >= (3, 7) else 64
"""Columns at most of a pass of one product, whose epilogue reads the box under every coefficient. With 64, Triton 3.7
runs out of registers on sm_90, and with 32, Triton 3.6 on sm_100: the only tile that depends on the version."""


def target(capability: int) -> Target:
    """The target of a compute capability (90 for 9.0)."""
    return HOPPER if 90 <= capability < 120 else AMPERE


def for_depth(aim: Target, products: int, lines: int) -> Target:
    """The target of a pass of that many products: a long one leaves no registers for uncut depths, and nor do lines
    that are given, of which a ReLU step reads twice as many (``lines`` 4, not 2)."""
    if products == 1:
        return replace(aim, max_block_n=min(aim.max_block_n, LONE_BLOCK_N))
    return aim if products <= 3 and lines == 2 else replace(aim, whole_block_k=aim.max_block_k)


@cache
def capability(device: torch.device) -> int:
    """The compute capability of a device; the interpreter counts as Hopper."""
    if device.type != "cuda":
        return 90
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


@dataclass(frozen=True)
class Tile:
    """One product's tile: [positions * rows, block_k] @ [block_k, block_n], loads ``pipeline`` tiles ahead."""

    block_n: int
    block_k: int
    positions: int
    pipeline: int


@dataclass(frozen=True)
class IbpTile:
    """Tile of one interval step: [block_m, block_k] @ [block_k, block_n]."""

    block_m: int
    block_n: int
    block_k: int
    warps: int


def ibp_tile(layer: Geometry) -> IbpTile:
    """Interval steps are a thousandth of a pass: one tile, narrower for layers with few channels."""
    return IbpTile(64, _block_n(layer.out_channels, 32), 16, 4)


def rows(units: Sequence[int], limit: int, aim: Target) -> int:
    """Rows that a program carries together, given the units that each product leaves and the rows that there are."""
    pitch = 4 * (max(units[0::2]) + max(units[1::2], default=0))
    count = 16
    while count < aim.tile_rows and 2 * count * pitch <= aim.scratch_bytes and count < limit:
        count *= 2
    return count


def tile(n: int, k: int, blocks: int, row_count: int, aim: Target) -> Tile:
    """The tile of a product with ``n`` columns, depth ``k`` and ``blocks`` blocks, for ``row_count`` rows."""
    positions = max(1, min(aim.tile_rows // row_count, _power_of_two(blocks)))
    whole = max(16, _power_of_two(k))
    return Tile(_block_n(n, aim.max_block_n), whole if whole <= aim.whole_block_k else aim.max_block_k, positions, 2)


def block_cost(n: int, k: int, aim: Target) -> float:
    """Time of one block of one row, in multiply-adds: the padded product, and the loads once a column tile."""
    width = _block_n(n, aim.max_block_n)
    tiles, padded_k = -(-n // width), -(-k // 16) * 16
    return tiles * padded_k * (width + LOAD_COST)


def start_block(row_count: int) -> int:
    """Units of one step of the start."""
    return max(16, 2048 // row_count)


def programs(device: torch.device) -> int:
    """How many programs run at once; each owns a slice of scratch."""
    if device.type != "cuda":
        return 4  # the interpreter
    return target(capability(device)).programs * torch.cuda.get_device_properties(device).multi_processor_count


def _block_n(n: int, limit: int) -> int:
    """Columns of a tile: the widest that does not pad much more than a narrower one would."""
    sizes = (size for size in (16, 32, 64) if size <= limit)
    return min(sizes, key=lambda size: (-(-n // size) * size * (1 + 4 / size), -size))


def _power_of_two(value: int) -> int:
    """The least power of two that is not less."""
    return 1 << (value - 1).bit_length()
