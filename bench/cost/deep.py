"""The CUDA kernel of deep chains (csrc/cuda/pass_deep.cu): what each warp executes, from the shapes and the code."""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.cost.device import PARTITIONS, SHARED_LIMIT, Cost, Work
from bench.cost.sass import Compiled
from bench.cost.windows import Window, below, units, useful, whole
from glsk.geometry import Geometry

GROUP = ROWS = 16
HALF = 512  # bytes of 16 rows x 16 channels of 16-bit numbers
SCALES = 92  # bytes of the powers of two that FP16 operands are scaled by
PRODUCT = 16 * 8 * 16  # multiply-adds of one instruction


@dataclass(frozen=True)
class Kind:
    """An instance of the kernel, by its products.

    Attributes:
        precision: a name of ``glsk.precision``.
        symbol: the class of csrc/cuda/deep_products.cuh.
        instruction: what a product is in machine code.
        parts: products that make one of float32 numbers.
        constants: products that sum up a step's constants, and as many where there are biases too.
    """

    precision: str
    symbol: str
    instruction: str
    parts: int
    constants: int

    def kernel(self, channels: int) -> str:
        """Part of the mangled name of what serves so many image channels and one group at level 1."""
        return f"deep_kernelILi{1 if channels == 1 else 3}ELb1ENS1_{len(self.symbol)}{self.symbol}"


BF16X3 = Kind("bf16x3", "Bf16x3", "HMMA.16816.F32.BF16", 3, 0)
FP16 = Kind("fp16", "Fp16", "HMMA.16816.F32", 1, 1)
KINDS = BF16X3, FP16


@dataclass(frozen=True)
class Layout:
    """How a thread block lies in shared memory, as ``Shape`` in csrc/cuda/deep.cuh has it."""

    warps: int
    spilled: bool
    shared: int
    tables: int
    """Bytes of a block's tables in global memory."""
    spill: int
    """Bytes of a warp's coefficients in global memory."""


def groups(layer: Geometry) -> int:
    return -(-layer.out_channels // GROUP)


def layout(layers: Sequence[Geometry], parts: int = 3, limit: int = SHARED_LIMIT) -> Layout:
    """The layout of a pass with many members and samples: as many warps as fit, spilling only for more of them.

    ``parts``: products that make one of float32 numbers; with three, coefficients and weights are high and low parts,
    with one they are scaled, and lines are halves.
    """
    fragment = HALF * min(2, parts)
    *convs, last = layers
    image, top = convs[0], len(convs) - 1
    weights = sum(groups(a) * groups(b) * 16 * fragment for a, b in zip(convs[1:], convs[:-1], strict=True))
    weights += image.in_channels * 3 * fragment
    rings = [2 * layer.out_width * groups(layer) * fragment for layer in convs[1:]]
    pairs = image.out_width + 2
    sums = image.in_channels * 3 * (pairs * 2 * ROWS + 8) * 4
    tables = sum(4 * min(2, parts) * layer.out_height * layer.out_width * groups(layer) * GROUP for layer in convs)
    tables += 16 * image.in_channels * (2 * image.out_height + 4) * pairs
    tables += 16 * -(-last.out_channels // 4) * (parts == 1)
    rows, scales = min(last.out_features, 1024), SCALES * (parts == 1)
    for warps in range(8, 0, -1):
        for spilled in (False, True)[: 1 + (top > 1)]:
            own = sum(rings) - spilled * rings[-1] + (top + 1) * 16 + sums
            shared = weights + warps * own + 4 * rows + 4 * (32 * warps + 1) + scales
            if shared <= limit:
                return Layout(warps, spilled, shared, tables, spilled * rings[-1])
    raise ValueError("the deep kernel does not serve this pass")


@dataclass(frozen=True)
class Code:
    """Instructions of the kernel for one image channel and one group at level 1, and where its operands come from.

    Attributes:
        last: a cell of level 0, image included, by rows above: the whole loop.
        middle: a cell of another level, without its products.
        middle_products: one fragment above in it: its products and what feeds them.
        channel: assumed, of the last product's further image channels: four products, and a pixel's sums and box.
        row: assumed, of what a row of level 0 costs once; the code has about as many.
        seed: assumed, of a fragment of the rows' own coefficients.
        parts: products that make one of float32 numbers; with three, coefficients are high and low parts.
        constants: products that sum up the constants of a step through a ReLU.
        taps: bytes of shared memory that a warp reads for a fragment's operands.
        held: whether level 0's stay in registers along a row.
        wgmma: whether products are asynchronous, of four warps together.
    """

    last: dict[int, int]
    middle: int
    middle_products: int
    channel: int = 48
    row: int = 300
    seed: int = 150
    parts: int = 3
    constants: int = 0
    taps: int = 8 * HALF
    held: bool = True
    wgmma: bool = False

    @classmethod
    def read(cls, code: Compiled, kind: Kind) -> "Code":
        loops = [(loop[kind.instruction], loop.total()) for loop in code.loops(kind.kernel(1))]
        # Products of a fragment, and of the image's operands in a cell; those of the constants of two pixels.
        each, more = 8 * kind.parts, 2 * kind.constants
        last = {rows: min(total for n, total in loops if n == each * (rows + 1) + more) for rows in (1, 2)}
        # Loops over fragments lie within loops over cells, for a ring in shared memory and again for one in the L2
        # cache; the costlier counts.
        inner = max(total for n, total in loops if n == each and total < 100)
        # A cell below two rows begins with the products of one fragment, outside of these loops.
        both = (total for n, total in loops if n == 3 * each + 2 * more and total not in last.values())
        middle = max(both) - 3 * inner
        taps, channel = 4 * HALF * min(2, kind.parts), 36 + 4 * kind.parts
        return cls(last, middle, inner, channel, parts=kind.parts, constants=kind.constants, taps=taps)


def tile(layers: Sequence[Geometry], start: Window, spilled: bool, code: Code) -> Work:
    """What a tile whose rows read ``start`` of the top level costs one warp."""
    *convs, _ = layers
    window, top = start, len(convs) - 1
    fragments = units(window) * groups(convs[top])
    products, constants, issued, shared = 0, 2 * code.constants * fragments, float(fragments * code.seed), 0
    fragment, lines = HALF * min(2, code.parts), 64 * min(2, code.parts)  # bytes
    l2 = fragments * (lines + 8 * 16 * 32)  # weights a sector each
    for k in range(top, 0, -1):
        layer, under = convs[k], convs[k - 1]
        down, in_l2 = below(layer, window), spilled and k == top
        ring = units(window) * groups(layer) * fragment  # written here, read once for every row and group below
        for y in down[0]:
            above = sum((y + layer.pad_height) // 2 - r in window[0] for r in (0, 1))
            cells, read = len(window[1]) + 1, len(window[1]) * above * groups(layer)
            ring += groups(under) * read * fragment
            if k > 1:
                products += groups(under) * 8 * code.parts * read
                issued += groups(under) * ((cells - 1) * code.middle + read * code.middle_products)
                shared += groups(under) * read * code.taps
                constants += 2 * code.constants * groups(under) * len(down[1])
            else:
                pixels, deep = len(down[1]), under.in_channels
                products += (8 * read + 4 * pixels * deep) * code.parts
                issued += (cells - 1) * (code.last[max(above, 1)] + 2 * code.channel * (deep - 1)) + code.row
                image = code.taps // (8 if code.held else 2) + 1152  # of a pixel: an operand, sums, the box
                constants += code.constants * pixels
                shared += (above if code.held else read) * code.taps + pixels * deep * image
        shared, l2 = shared + (0 if in_l2 else ring), l2 + (ring if in_l2 else 0)
        l2 += units(down) * groups(under) * lines
        window = down
    l2 += (2 * len(window[0]) + 3) * (len(window[1]) + 2) * 16 * convs[0].in_channels
    mma, wgmma = (constants, products) if code.wgmma else (constants + products, 0)
    executed = products * PRODUCT / code.parts
    return Work(executed=executed, mma=mma, wgmma=wgmma, instructions=issued, shared=shared, l2=l2)


def count(layers: Sequence[Geometry], where: Layout, code: Code) -> Work:
    """Both sides of the last layer's outputs."""
    last, rows = layers[-1], 2 * layers[-1].out_features
    starts: list[Window] = [whole(layers[-2])]
    if not last.is_linear:
        positions = [(y, x) for y in range(last.out_height) for x in range(last.out_width)]
        starts = [below(last, (range(y, y + 1), range(x, x + 1))) for y, x in positions]
    each = -(-rows // len(starts) // ROWS)  # a position's rows fill its tiles in these nets
    total = Work()
    for start in starts:
        total += tile(layers, start, where.spilled, code).times(each)
    bounds = sum(layer.out_features for layer in layers[:-1]) * 2 + layers[0].in_features * 2 + rows
    tiles = each * len(starts)
    idle = -(-tiles // where.warps) * where.warps / tiles  # the last round's warps
    padded = Work(mma=total.mma, wgmma=total.wgmma, instructions=total.instructions).times(idle - 1)
    return total + padded + Work(useful=useful(layers, None), hbm=4 * bounds)


def cost(layers: Sequence[Geometry], code: Compiled, kind: Kind) -> Cost:
    """Both sides of the last layer's outputs."""
    where = layout(layers, kind.parts)
    text = f"{ROWS} rows a warp, in {'shared memory, the top level in L2' if where.spilled else 'shared memory'}"
    registers = code.registers(kind.kernel(layers[0].in_channels))
    assert where.warps >= PARTITIONS, "an idle partition is not modelled"
    name = f"CUDA deep, `{kind.precision}`"
    return Cost(name, text, count(layers, where, Code.read(code, kind)), where.warps, registers)
