"""What the CUDA kernels that keep a whole pass on chip cost, counted from their structure and their compiled code.

One (member, sample), float32, as a training step calls CROWN. ``csrc/cuda/pass_patch.cu`` and ``pass_margins.cu`` say
what is counted here; registers are those of the installed ``glsk._CUDA``.
"""

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from glsk.geometry import Geometry

FP32 = 67e12
"""Float32 operations a second of an H100 SXM outside the tensor cores, by the data sheet."""

EFFICIENCY = 0.6
"""Assumed share of it: 0.78 of the hot loops' instructions are multiply-adds, issued in three of four cycles."""

THREADS = 128
LANES = 9  # of the margins kernel


@dataclass(frozen=True)
class OnChip:
    """One pass by one kernel."""

    kernel: str
    tile: str
    useful: float
    executed: float
    hbm: float
    registers: int
    shared: int

    @property
    def blocks(self) -> int:
        """Thread blocks a multiprocessor holds: registers by the warp on four partitions, 227 KiB shared memory."""
        warps = 4 * (16384 // (-(-self.registers * 32 // 256) * 256))
        return min(warps * 32 // THREADS, 227 * 1024 // (self.shared + 1024), 2048 // THREADS)

    @property
    def occupancy(self) -> float:
        return self.blocks * THREADS / 2048


def patch(layers: Sequence[Geometry], sides: int = 2) -> OnChip:
    """The rows of a convolution that reads a convolution: a thread a row and side, its patch in registers."""
    first, second = layers
    k1, k2 = first.kernel_height, second.kernel_height
    rows, lanes = second.out_features, sides * second.out_features
    taps2, taps1 = k2 * k2 * first.out_channels, k1 * k1 * first.in_channels
    side = (k2 - 1) * first.stride_height + k1
    executed = lanes * (taps2 * (taps1 + 2 * first.in_channels) + 2 * side * side * first.in_channels)
    hidden = ((second.out_height - 1) * second.stride_height + k2) * ((second.out_width - 1) * second.stride_width + k2)
    box = ((second.out_height - 1) * second.stride_height + k2 - 1) * first.stride_height + k1
    w2 = first.out_channels * second.out_channels * (k2 * -(-k2 // 4) * 4 + 4)
    floats = 4 * first.out_channels * hidden + w2 + first.in_channels * first.out_channels * -(-k1 * k1 // 4) * 4
    floats += 2 * first.in_channels * box * box + second.out_channels + min(rows, 1024) + THREADS + 1
    one = first.in_channels == 1
    name = f"patch_kernelILi{k2}ELi{first.stride_height}ELi{k1}ELb{int(one)}"
    hbm = 4 * (2 * first.out_features + sides * rows)
    tile = f"{THREADS} lanes, {side} x {side} inputs each"
    return OnChip("CUDA patch", tile, lanes * taps2 * taps1, executed, hbm, registers(name), 4 * floats)


def margins(layers: Sequence[Geometry], rows: int, sides: int = 1) -> OnChip:
    """Rows of C through a linear layer and two convolutions: nine lanes a thread block, all in shared memory."""
    first, second, last = layers
    lanes = sides * -(-rows // LANES) * LANES
    k1, k2 = first.kernel_height, second.kernel_height
    s1, s2 = first.stride_height, second.stride_height
    channels = -(-first.out_channels // 4) * 4
    through_linear = last.in_channels * last.out_channels
    through_second = second.out_features * k2 * k2 * channels
    tiles = (-(-(-(-(first.in_height + first.pad_height) // s1) - first.pad_height // s1) // 2)) ** 2
    through_first = first.in_channels * tiles * (2 * s1) ** 2 * first.out_channels * k1 * k1 / s1**2
    executed = lanes * (through_linear + through_second + through_first + 2 * first.in_features)
    useful_first = first.out_features * first.in_channels * k1 * k1
    useful = sides * rows * (through_linear + second.out_features * second.in_channels * k2 * k2 + useful_first)
    up = lambda count: -(-count // 4) * 4  # noqa: E731
    floats = second.out_channels * k2 * k2 * channels + first.in_channels * first.out_channels * up(k1 * k1)
    floats += up(first.out_features * LANES) + up(max(second.out_features, THREADS + 8) * LANES)
    floats += last.out_channels * LANES
    hbm = 4 * (2 * (first.out_features + second.out_features) + sides * rows)
    tile = f"{s2} x {s2} pixels x 4 channels x {LANES} lanes a thread"
    return OnChip("CUDA margins", tile, useful, executed, hbm, registers("margins_kernel"), 4 * floats)


def missing() -> str | None:
    """Why the compiled code cannot be read here, or None."""
    if _extension() is None:
        return "glsk._CUDA is not built"
    if _cuobjdump() is None:
        return "cuobjdump is not there"
    return None if "sm_90" in _usage() else "glsk._CUDA is not built for sm_90"


def nvcc_version() -> str:
    """Of the nvcc that builds here, "unknown" without one."""
    nvcc = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
    text = subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout if nvcc else ""
    found = re.search(r"release ([\d.]+)", text)
    return found[1] if found else "unknown"


def registers(name: str) -> int:
    """Of a thread of the kernel whose mangled name holds ``name``, compiled for sm_90."""
    of_sm_90 = "".join(
        part for part in re.split(r"(?=^arch = )", _usage(), flags=re.MULTILINE) if part.startswith("arch = sm_90")
    )
    found = re.search(rf"Function \S*{name}\S*:\s*REG:(\d+)", of_sm_90)
    if found is None:
        raise SystemExit(f"glsk._CUDA holds no {name} for sm_90: build it with GLSK_CUDA_ARCHS=90")
    return int(found[1])


def _extension() -> Path | None:
    found = importlib.util.find_spec("glsk._CUDA")  # not beside the Python files in an editable install
    return Path(found.origin) if found is not None and found.origin is not None else None


def _cuobjdump() -> str | None:
    import triton

    packaged = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    return next((path for name in (str(packaged), "cuobjdump") if (path := shutil.which(name))), None)


@cache
def _usage() -> str:
    command = [str(_cuobjdump()), "--dump-resource-usage", str(_extension())]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
