"""Ahead-of-time compilation: what the compiler makes of every kernel of a network, without a GPU.

Used by the tests (it must build, not spill, fit shared memory and use tensor cores) and by ``bench/cost``.
"""

import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import triton
from glsk.kernels import (
    back_substitution,
    config,
    hbox_relu,
    ibp_affine,
    launch,
    pack,
    relu_relaxation,
    robust_cross_entropy,
    rows,
)
from glsk.kernels.plan import make_plan
from glsk.kernels.shape import Plan
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from glsk.geometry import Geometry

_TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


@dataclass(frozen=True)
class Binary:
    """One compiled kernel."""

    name: str
    capability: int
    warps: int
    registers: int
    shared: int
    """Bytes of shared memory of a program."""
    stack: int
    """Bytes of local memory of a thread: 0 unless it spills."""
    sass: str

    @property
    def spills(self) -> int:
        """Accesses to local memory in the machine code."""
        return len(re.findall(r"\b(?:STL|LDL)\b", self.sass))

    @property
    def tensor_core(self) -> list[str]:
        """The tensor-core instructions, each once, without modifiers that differ by shape."""
        return sorted(set(re.findall(r"\b(?:HMMA|HGMMA|UTC\w*MMA|OMMA|QMMA)[\w.]*", self.sass)))

    @property
    def programs(self) -> int:
        """Programs that fit a multiprocessor of the H100 (64 Ki registers, 227 KiB shared memory, 64 warps)."""
        per_warp = -(-self.registers * 32 // 256) * 256
        return min(65536 // (per_warp * self.warps), 64 // self.warps, 227 * 1024 // (self.shared + 1024))


def compile_kernel(kernel: Any, constants: dict[str, object], warps: int, capability: int) -> Binary:
    """Compile ``kernel`` with ``constants``; pointers are float32 (int32 for rows) and aligned, other numbers int32."""
    signature: dict[str, str] = {}
    attributes: dict[tuple[int, ...], list[list[object]]] = {}
    for i, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name] = "constexpr"
        elif name.endswith("_ptr"):
            signature[name] = "*i32" if name in ("units_ptr", "counts_ptr") else "*fp32"
            attributes[i,] = [["tt.divisibility", 16]]
        else:
            signature[name] = "i32"
    values = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    source = ASTSource(fn=kernel, signature=signature, constexprs=values, attrs=attributes)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps})
    return _inspect(compiled.metadata.name, capability, warps, compiled.metadata.shared, compiled.asm["cubin"])


def _inspect(name: str, capability: int, warps: int, shared: int, cubin: bytes) -> Binary:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage = _tool("cuobjdump", "--dump-resource-usage", file.name)
        sass = _tool("nvdisasm", "-c", file.name)
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    assert found is not None, usage
    return Binary(name, capability, warps, int(found[1]), shared, int(found[2]), sass)


def _tool(name: str, *arguments: str) -> str:
    command = [str(_TOOLS / name), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@cache
def compile_pass(plan: Plan, sides: int, listed: bool, lines: int, precision: str, capability: int) -> Binary:
    """The engine for one pass."""
    constants = {"PLAN": plan, "SIDES": sides, "LISTED": listed, "LINES": lines, "PRECISION": precision}
    return compile_kernel(back_substitution.back_substitution_kernel, constants, plan.warps, capability)


@cache
def compile_ibp(layer: Geometry, relu: bool, capability: int) -> Binary:
    """One interval step."""
    tile = config.ibp_tile(layer)
    constants = {"L": layer, "RELU": relu, "LEAK": 0.0, "PRECISION": launch.precision()}
    constants |= {"BLOCK_M": tile.block_m, "BLOCK_N": tile.block_n, "BLOCK_K": tile.block_k}
    return compile_kernel(ibp_affine.ibp_affine_kernel, constants, tile.warps, capability)


def crown_plans(layers: Sequence[Geometry], specification_rows: int, capability: int, lines: int = 2) -> list[Plan]:
    """The plans of CROWN's passes as training runs them: every hidden layer after the first, then the specification."""
    aim = config.target(capability)
    hidden = range(1, len(layers) - 1)
    plans = [make_plan(tuple(layers[: k + 1]), False, 2 * layers[k].out_features, aim, lines) for k in hidden]
    return [*plans, make_plan(tuple(layers), True, specification_rows, aim, lines)]


def compile_small(plan: Plan, capability: int) -> list[Binary]:
    """Every kernel beside the engine and the interval step, as a pass of this plan launches them."""
    stage, start = plan.stages[0], plan.start
    first = {"ROWS": stage.out_channels, "CHANNELS": start.channels, "PIXELS": start.units // start.channels}
    first |= {"PACKED": plan.packed, "BLOCK": pack.BLOCK}
    split = {"G": stage, "PACKED": plan.packed, "SPLIT": True, "BLOCK": pack.BLOCK}
    kernels: list[tuple[Any, dict[str, object]]] = [
        (pack.pack_stage_kernel, split),
        (pack.pack_first_kernel, first),
        (rows.unstable_rows_kernel, {"UPPER": True, "BLOCK": rows.BLOCK}),
        (relu_relaxation.channel_last_slopes_kernel, {"MASK": False, "BLOCK": relu_relaxation.BLOCK}),
        (relu_relaxation.channel_last_slopes_kernel, {"MASK": True, "BLOCK": relu_relaxation.BLOCK}),
        (hbox_relu.hbox_relu_kernel, {"LEAK": 0.0, "BLOCK": hbox_relu.BLOCK}),
        (
            robust_cross_entropy.robust_cross_entropy_kernel,
            {"S": 9, "S_PADDED": 16, "BLOCK": robust_cross_entropy.BLOCK},
        ),
    ]
    return [compile_kernel(kernel, constants, 4, capability) for kernel, constants in kernels]
