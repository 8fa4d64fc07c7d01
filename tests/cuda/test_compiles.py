"""Every CUDA kernel compiles for sm_80 and sm_90, spills no register, and the hot ones are made of what they should be.

No GPU is needed, only nvcc; the disassembly also needs cuobjdump, which CUDA's toolkit and Triton's package have.
"""

import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.cost import sass
from bench.cost.deep import BF16X3, FP16, Kind

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "csrc" / "cuda").glob("*.cu"))
ARCHS = ("80", "90")
REGISTERS = 65536  # of a multiprocessor, both architectures

# Kernel name -> (threads a block, blocks that a multiprocessor must be able to hold by its registers). The first that
# is found in the mangled name counts.
OCCUPANCY = {
    "patch_kernelILb0": (128, 2),
    "patch_kernel": (128, 3),
    "margins_kernel": (128, 2),
    "deep_kernel": (256, 1),
    "general_kernelIf": (128, 3),
    "general_kernelId": (128, 2),
    "general_backward_kernel": (128, 2),
    "interval_box_kernel": (128, 4),
    "interval_weight_kernel": (64, 6),
    "sum_kernel": (256, 4),
    "conv_kernelIf": (128, 5),
    "conv_kernelId": (128, 3),
    "linear_kernel": (64, 6),
    "hbox_kernel": (256, 4),
    "loss_kernel": (256, 4),
    "probe_kernel": (1, 1),
}


@dataclass
class Kernel:
    """What ptxas says about one kernel on one architecture."""

    arch: str
    name: str
    registers: int
    stack: int
    spilled: int


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    """Source name -> its object, and what ptxas reported."""
    compiler = sass.nvcc()
    if compiler is None:
        pytest.skip("nvcc is not there")
    folder = tmp_path_factory.mktemp("cuda")
    targets = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in ARCHS]

    def compile_one(source: Path) -> tuple[str, tuple[Path, str]]:
        made = folder / f"{source.stem}.o"
        flags = ["-std=c++17", "-O3", "-Xptxas=-v", f"-I{ROOT / 'csrc'}", *targets]
        command = [compiler, *flags, "-c", str(source), "-o", str(made)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return source.stem, (made, done.stderr)

    with ThreadPoolExecutor(2) as pool:
        return dict(pool.map(compile_one, SOURCES))


@pytest.fixture(scope="module")
def kernels(objects: dict[str, tuple[Path, str]]) -> list[Kernel]:
    pattern = re.compile(
        r"Compiling entry function '(?P<name>\w+)' for 'sm_(?P<arch>\d+)'.*?"
        r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
        r"Used (?P<registers>\d+) registers",
        re.DOTALL,
    )
    found = [
        Kernel(m["arch"], m["name"], int(m["registers"]), int(m["stack"]), int(m["stores"]) + int(m["loads"]))
        for _, report in objects.values()
        for m in pattern.finditer(report)
    ]
    assert len(found) == sum(report.count("Compiling entry") for _, report in objects.values())
    return found


def test_every_kernel_is_known(kernels: list[Kernel]) -> None:
    assert {kernel.arch for kernel in kernels} == set(ARCHS)
    for part in OCCUPANCY:
        assert any(part in kernel.name for kernel in kernels), part
    for kernel in kernels:
        assert any(part in kernel.name for part in OCCUPANCY), kernel.name


def test_nothing_spills(kernels: list[Kernel]) -> None:
    for kernel in kernels:
        assert kernel.spilled == 0, kernel
        assert kernel.stack == 0, kernel  # an array indexed at run time would live there


def test_enough_blocks_fit_a_multiprocessor(kernels: list[Kernel]) -> None:
    """Registers are handed out a warp at a time, in units of 256, on four partitions of 16384."""
    for kernel in kernels:
        threads, blocks = next(limit for part, limit in OCCUPANCY.items() if part in kernel.name)
        a_warp = -(-kernel.registers * 32 // 256) * 256
        warps = 4 * (REGISTERS // 4 // a_warp)
        assert warps // -(-threads // 32) >= blocks, kernel


def disassembled(made: Path, arch: str) -> str:
    if sass.cuobjdump() is None:
        pytest.skip("cuobjdump is not there")
    return sass.disassembled(made, arch)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize(
    ("source", "name", "least", "share"),
    [
        # 16 taps x 25 multiply-adds and 16 constants a hidden channel
        ("pass_patch", "patch_kernelILb1", 416, 0.78),
        # step 2: 4 pixels x 4 channels x 9 lanes an output channel; step 3: 100 taps x 3 lanes a hidden channel
        ("pass_margins", "margins_kernel", 144, 0.78),
        ("pass_margins", "margins_kernel", 300, 0.70),
    ],
)
def test_hot_loops(
    objects: dict[str, tuple[Path, str]], arch: str, source: str, name: str, least: int, share: float
) -> None:
    """Most of a hot loop is fused multiply-adds; it reads weights 16 bytes at a time and touches no local memory."""
    code = disassembled(objects[source][0], arch)
    innermost = [loop for loop in sass.loops(code, name) if least <= loop["FFMA"] < 1.1 * least]
    assert innermost, [loop["FFMA"] for loop in sass.loops(code, name)]
    best = max(innermost, key=lambda loop: loop["FFMA"] / loop.total())
    assert best["FFMA"] / best.total() >= share, best
    assert best["LDS.128"] > 0, best
    assert not any(code.startswith(("LDL", "STL", "LDG")) for code in best), best


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize(
    ("kind", "products", "share"),
    [
        # A cell of two pixels of level 0: 2 rows above x 2 pixels x 2 halves x 2 cells x 3, and 2 x 4 operands x 3
        (BF16X3, 72, 0.22),
        # The same where the window has one row above
        (BF16X3, 48, 0.15),
        # With the constants of two pixels
        (FP16, 26, 0.13),
        (FP16, 18, 0.09),
    ],
)
def test_tensor_core_loops(
    objects: dict[str, tuple[Path, str]], arch: str, kind: Kind, products: int, share: float
) -> None:
    """CNN5's hot loops: a product in few instructions, and no local or generic address."""
    code = disassembled(objects["pass_deep"][0], arch)
    innermost = [loop for loop in sass.loops(code, kind.kernel(1)) if loop[kind.instruction] == products]
    best = max(innermost, key=lambda loop: products / loop.total())
    assert products / best.total() >= share, best
    assert best["LDS.128"] > 0, best
    assert not any(code.startswith(("LDL", "STL", "LD.", "ST.")) for code in best), best
