"""What the CUDA kernel of deep chains (csrc/cuda/pass_deep.cu) should cost on an H100. Not yet measured on a GPU.

Counts what each warp executes, from the shapes and the code for sm_90: tensor-core products, instructions, bytes of
shared memory, of the L2 cache and of device memory. Needs nvcc and cuobjdump.

    python -m bench.cost_cuda            prints the tables and writes them to bench/cost_cuda.md
    python -m bench.cost_cuda --check    fails if that file is not up to date
"""

import argparse
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import glsk
from glsk import models
from glsk.geometry import Geometry
from tests.cuda import test_compiles

ROOT = Path(__file__).resolve().parents[1]
TABLES = Path(__file__).with_name("cost_cuda.md")
SAMPLES, MEMBERS = 60_000, 256

# NVIDIA H100 SXM.
CLOCK, MULTIPROCESSORS, SHARED_LIMIT = 1.755e9, 132, 227 << 10
PARTITIONS = 4  # of a multiprocessor, each issuing one instruction a cycle to its own tensor core
PRODUCT_CYCLES = 4 / 0.625
"""Of mma.sync m16n8k16: 4 at the peak, of which mma.sync (not wgmma) is reported to reach 60 to 65 %."""
SHARED_BYTES = 128  # a cycle, of a multiprocessor
L2, HBM = 5.5e12, 3.35e12
EFFICIENCY = {2: 0.8, 1: 0.55}
"""Assumed share of the time in which the busiest resource is busy, by how many warps every partition has."""

GROUP = ROWS = 16
FRAGMENT = 1024  # bytes of 16 rows x 16 channels, high and low parts
PRODUCT = 16 * 8 * 16  # multiply-adds of one instruction; three make a float32 product

TRITON = {"layer 2": 8204.0, "layer 3": 22177.0, "margins": 380.8}
"""ns that bench/cost_model.py predicted for the Triton kernels, which served these passes before."""
PATCH_FMA, PATCH_SHARE = 128 * MULTIPROCESSORS * CLOCK, 0.78
"""Fused multiply-adds a second of the CUDA cores, and their share of the patch kernel's instructions."""


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


def layout(layers: Sequence[Geometry], limit: int = SHARED_LIMIT) -> Layout:
    """The layout of a pass with many members and samples: as many warps as fit, spilling only for more of them."""
    *convs, last = layers
    image, top = convs[0], len(convs) - 1
    weights = sum(groups(a) * groups(b) * 16 * 2 * 512 for a, b in zip(convs[1:], convs[:-1], strict=True))
    weights += image.in_channels * 6 * 512
    rings = [2 * layer.out_width * groups(layer) * FRAGMENT for layer in convs[1:]]
    pairs = image.out_width + 2
    sums = image.in_channels * 3 * (pairs * 2 * ROWS + 8) * 4
    tables = sum(8 * layer.out_height * layer.out_width * groups(layer) * GROUP for layer in convs)
    tables += 16 * image.in_channels * (2 * image.out_height + 4) * pairs
    rows = min(last.out_features, 1024)
    for warps in range(8, 0, -1):
        for spilled in (False, True)[: 1 + (top > 1)]:
            own = sum(rings) - spilled * rings[-1] + (top + 1) * 16 + sums
            shared = weights + warps * own + 4 * rows + 4 * (32 * warps + 1)
            if shared <= limit:
                return Layout(warps, spilled, shared, tables, spilled * rings[-1])
    raise ValueError("the deep kernel does not serve this pass")


@dataclass
class Work:
    """Of one tile of rows, by one warp."""

    products: int = 0
    instructions: float = 0.0
    shared: int = 0
    l2: int = 0

    def __iadd__(self, other: "Work") -> "Work":
        self.products += other.products
        self.instructions += other.instructions
        self.shared += other.shared
        self.l2 += other.l2
        return self


@dataclass(frozen=True)
class Code:
    """Instructions of the compiled kernel for one image channel and one group at level 1, on sm_90."""

    registers: int
    last: dict[int, int]
    """A cell of level 0, image included, by rows above: the whole loop."""
    middle: int
    """A cell of another level, without its products."""
    middle_products: int
    """One fragment above in it: 24 products and what feeds them."""
    channel: int = 48
    """Assumed, of the last product's further image channels: 12 products, and the sums and the box of a pixel."""
    row: int = 300
    """Assumed, of what a row of level 0 costs once; the code has about as many."""
    seed: int = 150
    """Assumed, of a fragment of the rows' own coefficients."""


@cache
def compiled() -> Code:
    """Compile the kernel and count."""
    source = ROOT / "csrc" / "cuda" / "pass_deep.cu"
    compiler = test_compiles.nvcc()
    if compiler is None:
        raise SystemExit("nvcc is not there")
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "deep.o")
        flags = ["-std=c++17", "-O3", "-Xptxas=-v", f"-I{ROOT / 'csrc'}", "-gencode=arch=compute_90,code=sm_90"]
        report = subprocess.run(
            [compiler, *flags, "-c", str(source), "-o", str(made)], capture_output=True, text=True, check=True
        ).stderr
        sass = test_compiles.disassembled(made, "90")
    name = "deep_kernelILi1ELb1"
    registers = re.search(name + r".*?Used (\d+) registers", report, re.DOTALL)
    assert registers is not None
    loops = [(loop["HMMA.16816.F32.BF16"], loop.total()) for loop in test_compiles.loops(sass, name)]
    last = {rows: min(total for products, total in loops if products == 24 * rows + 24) for rows in (1, 2)}
    # Loops over fragments lie within loops over cells, for a ring in shared memory and again for one in the L2 cache;
    # the costlier counts.
    inner = max(total for products, total in loops if products == 24 and total < 100)
    middle = max(total for products, total in loops if products == 48 and total not in last.values()) - 2 * inner
    return Code(int(registers[1]), last, middle, inner)


Window = tuple[range, range]


def below(layer: Geometry, window: Window) -> Window:
    """The inputs that a window of outputs reads."""

    def axis(out: range, stride: int, pad: int, kernel: int, size: int) -> range:
        return range(max(0, out.start * stride - pad), min(size, (out.stop - 1) * stride - pad + kernel))

    y, x = window
    return (
        axis(y, layer.stride_height, layer.pad_height, layer.kernel_height, layer.in_height),
        axis(x, layer.stride_width, layer.pad_width, layer.kernel_width, layer.in_width),
    )


def tile(layers: Sequence[Geometry], start: Window, spilled: bool, code: Code) -> tuple[Work, float]:
    """What a tile whose rows read ``start`` of the top level costs, and the multiply-adds that it is about, one row."""
    *convs, _ = layers
    window, top = start, len(convs) - 1
    fragments = len(window[0]) * len(window[1]) * groups(convs[top])
    work = Work(0, fragments * code.seed, 0, fragments * (128 + 8 * 16 * 32))  # tables; weights a sector each
    useful = 0.0
    for k in range(top, 0, -1):
        layer, under = convs[k], convs[k - 1]
        down = below(layer, window)
        in_l2 = spilled and k == top
        if in_l2:
            work.l2 += len(window[0]) * len(window[1]) * groups(layer) * FRAGMENT
        else:
            work.shared += len(window[0]) * len(window[1]) * groups(layer) * FRAGMENT
        for y in down[0]:
            above = sum((y + layer.pad_height) // 2 - r in window[0] for r in (0, 1))
            cells, read = len(window[1]) + 1, len(window[1]) * above * groups(layer)
            for _ in range(groups(under)):
                if k > 1:
                    taps = read * 8 * 512
                    work += Work(24 * read, (cells - 1) * code.middle + read * code.middle_products, taps, 0)
                else:
                    pixels, deep = len(down[1]), under.in_channels
                    mapped = (cells - 1) * (code.last[max(above, 1)] + 2 * code.channel * (deep - 1)) + code.row
                    taps = above * 8 * 512 + pixels * deep * (512 + 2 * 512 + 128)
                    work += Work(24 * read + 12 * pixels * deep, mapped, taps, 0)
                work += Work(0, 0, 0 if in_l2 else read * FRAGMENT, read * FRAGMENT if in_l2 else 0)
        units = len(down[0]) * len(down[1])
        work.l2 += units * groups(under) * 128  # the relaxation of 16 channels
        useful += taps_within(layer, window, down) * layer.in_channels * layer.out_channels
        window = down
    image = convs[0]
    useful += taps_within(image, window, below(image, window)) * image.in_channels * image.out_channels
    work.l2 += (2 * len(window[0]) + 3) * (len(window[1]) + 2) * 16 * image.in_channels
    return work, useful


def taps_within(layer: Geometry, window: Window, down: Window) -> int:
    """Pairs of an output in ``window`` and an input it reads."""

    def axis(out: range, inside: range, stride: int, pad: int, kernel: int) -> int:
        return sum(o * stride - pad + tap in inside for o in out for tap in range(kernel))

    return axis(window[0], down[0], layer.stride_height, layer.pad_height, layer.kernel_height) * axis(
        window[1], down[1], layer.stride_width, layer.pad_width, layer.kernel_width
    )


@dataclass(frozen=True)
class Cost:
    """Of one pass, both sides, for one (member, sample), nothing pruned."""

    name: str
    layout: Layout
    rows: int
    tiles: int
    work: Work
    useful: float
    hbm: int

    @property
    def times(self) -> dict[str, float]:
        """Seconds that each resource is busy on a whole device."""
        idle = -(-self.tiles // self.layout.warps) * self.layout.warps / self.tiles  # the last round's warps
        cycles = {
            "tensor cores": self.work.products * PRODUCT_CYCLES / PARTITIONS * idle,
            "instructions": self.work.instructions / PARTITIONS * idle,
            "shared memory": self.work.shared / SHARED_BYTES,
        }
        on_chip = {name: count / CLOCK / MULTIPROCESSORS for name, count in cycles.items()}
        return {**on_chip, "L2": self.work.l2 / L2, "HBM": self.hbm / HBM}

    @property
    def seconds(self) -> float:
        return max(self.times.values()) / EFFICIENCY[min(2, max(1, self.layout.warps // PARTITIONS))]


def cost(name: str, layers: Sequence[Geometry], code: Code) -> Cost:
    """Count one pass of both sides."""
    last = layers[-1]
    where, rows = layout(layers), 2 * last.out_features
    starts: list[Window] = [(range(layers[-2].out_height), range(layers[-2].out_width))]
    if not last.is_linear:
        positions = [(y, x) for y in range(last.out_height) for x in range(last.out_width)]
        starts = [below(last, (range(y, y + 1), range(x, x + 1))) for y, x in positions]
    each = -(-rows // len(starts) // ROWS)  # a position's rows fill its tiles in these nets
    total, useful = Work(), 0.0
    for start in starts:
        work, row = tile(layers, start, where.spilled, code)
        for _ in range(each):
            total += work
        useful += row * rows / len(starts)
    bounds = sum(layer.out_features for layer in layers[:-1]) * 2 + layers[0].in_features * 2 + rows
    return Cost(name, where, rows, each * len(starts), total, useful, 4 * bounds)


def report() -> Iterator[str]:
    """The lines of ``cost_cuda.md``."""
    code = compiled()
    yield "# Predicted cost of the CUDA kernel of deep chains on an H100"
    yield ""
    yield "**Not yet measured on a GPU.** Written by `python -m bench.cost_cuda` from shapes and the code for sm_90."
    yield (
        f"Assumed: {CLOCK / 1e9} GHz, {MULTIPROCESSORS} multiprocessors; {PRODUCT_CYCLES:.1f} cycles a `mma.sync` "
        "m16n8k16 (4 at the data sheet's peak; published measurements see 60 to 65 % of it without `wgmma`); one "
        f"instruction a cycle and partition; {SHARED_BYTES} bytes of shared memory a cycle; {L2 / 1e12} TB/s L2, "
        f"{HBM / 1e12} TB/s HBM; the busiest of these is busy {EFFICIENCY[2]:.0%} of the time with two warps a "
        f"partition and {EFFICIENCY[1]:.0%} with one. L2 bytes are as if nothing stayed in the L1 cache. "
        "Nothing is pruned."
    )
    yield (
        "Numbers are for one (member, sample), both sides. *Useful* multiply-adds leave out padding; *executed* ones "
        "are float32 products of three BF16 products each. Triton: what `bench/cost_model.py` predicted for the kernel "
        "that served the pass before."
    )
    for shape in ((1, 28, 28), (3, 32, 32)):
        layers = glsk.BoundedModule(models.build("cnn5", shape), shape).chain.geometry
        costs = [cost(f"layer {k}", layers[: k + 1], code) for k in (2, 3)]
        mnist = shape[0] == 1
        yield ""
        yield f"## CNN5, {'MNIST' if mnist else 'CIFAR-10'}"
        yield ""
        yield "| pass | rows | useful MMAC | executed MMAC | instructions a product | shared, MB | L2, MB | HBM, MB |"
        yield "|---|---|---|---|---|---|---|---|"
        for c in costs:
            yield (
                f"| {c.name} | {c.rows} | {c.useful / 1e6:.1f} | {c.work.products * PRODUCT / 3e6:.1f} "
                f"| {c.work.instructions / c.work.products:.2f} | {c.work.shared / 1e6:.1f} | {c.work.l2 / 1e6:.2f} "
                f"| {c.hbm / 1e6:.3f} |"
            )
        yield ""
        yield "| pass | ns: tensor cores | instructions | shared | L2 | HBM | predicted ns | Triton, ns |"
        yield "|---|---|---|---|---|---|---|---|"
        for c in costs:
            busy = " | ".join(f"{1e9 * value:.0f}" for value in c.times.values())
            triton = f"{TRITON[c.name]:.0f}" if mnist else ""
            yield f"| {c.name} | {busy} | {1e9 * c.seconds:.0f} | {triton} |"
        yield ""
        yield "| pass | warps a multiprocessor | shared, KiB | registers | top level's coefficients in |"
        yield "|---|---|---|---|---|"
        for c in costs:
            where = "L2" if c.layout.spilled else "shared memory"
            registers = str(code.registers) if mnist else ""
            yield f"| {c.name} | {c.layout.warps} | {c.layout.shared / 1024:.0f} | {registers} | {where} |"
        yield ""
        pairs = SAMPLES * MEMBERS
        if mnist:
            patch = 2 * 784 * 16 * 16 * (25 + 2) / PATCH_SHARE / PATCH_FMA / EFFICIENCY[2]
            parts = {c.name: c.seconds for c in costs} | {"margins, Triton": TRITON["margins"] * 1e-9}
            parts = {"layer 1, patch kernel": patch} | parts
            listed = ", ".join(f"{name} {seconds * pairs:.0f} s" for name, seconds in parts.items())
            before = (TRITON["layer 2"] + TRITON["layer 3"]) * 1e-9 * pairs
            yield (
                f"One epoch, {MEMBERS} members: **{sum(parts.values()) * pairs:.0f} s** predicted: {listed}. By the "
                f"Triton kernels, layers 2 and 3 alone: {before:.0f} s."
            )
        else:
            total = sum(c.seconds for c in costs) * pairs
            yield f"These passes of one epoch of as many samples, {MEMBERS} members: {total:.0f} s predicted."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only compare with the file")
    arguments = parser.parse_args()
    text = "\n".join(report()).rstrip() + "\n"
    if arguments.check:
        if not TABLES.exists() or TABLES.read_text() != text:
            raise SystemExit(f"{TABLES.name} is not up to date: run python -m bench.cost_cuda")
        return
    print(text, end="")
    TABLES.write_text(text)


if __name__ == "__main__":
    main()
