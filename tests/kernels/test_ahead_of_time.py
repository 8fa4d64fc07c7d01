"""Every kernel of CNN3 and CNN5 compiled to machine code, without a GPU: what must hold of it."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

ROOT = Path(__file__).parents[2]
SHARED = {80: 163 * 1024, 90: 227 * 1024}
"""Shared memory that one program may use."""
TENSOR_CORE = {80: "HMMA", 90: "HGMMA"}


def run(script: str, *arguments: object) -> list:
    """What a script of this folder prints, run without the interpreter."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", f"tests.kernels.{script}", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def compile_for(capability: int, *nets: str) -> list[dict[str, object]]:
    return run("compile_report", capability, *nets)


@pytest.fixture(scope="module")
def compiled() -> dict[int, list[dict[str, object]]]:
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(SHARED, pool.map(lambda c: compile_for(c, "cnn3", "cnn5"), SHARED), strict=True))


@pytest.mark.parametrize("capability", SHARED)
def test_nothing_spills_and_shared_memory_suffices(capability: int, compiled: dict) -> None:
    kernels = compiled[capability]
    assert len(kernels) > 20
    bad = [k for k in kernels if k["stack"] or k["spills"] or k["shared"] > SHARED[capability]]
    assert not bad


@pytest.mark.parametrize("capability", SHARED)
def test_matrix_kernels_use_tensor_cores(capability: int, compiled: dict) -> None:
    for kernel in compiled[capability]:
        assert bool(kernel["tensor_core"]) == kernel["matrix"], kernel
    for kernel in (k for k in compiled[capability] if k["matrix"]):
        assert any(name.startswith(TENSOR_CORE[capability]) for name in kernel["tensor_core"]), kernel
        # An assembler that wrongly finds a product unused leaves an empty FP16 one in its place.
        kind = "BF16" if "bf16x3" in kernel["what"] else "TF32"
        assert all(kind in name for name in kernel["tensor_core"]), kernel


@pytest.mark.parametrize("capability", SHARED)
def test_a_multiprocessor_holds_the_programs_that_the_launcher_counts_on(capability: int, compiled: dict) -> None:
    """More scratch slices than programs that fit would only spread the coefficients over more of the L2 cache."""
    assert all(k["programs"] >= k["wanted"] for k in compiled[capability])


@pytest.mark.parametrize("capability", [100, 120])
def test_newer_devices_are_compiled_for(capability: int) -> None:
    (kernel,) = compile_for(capability)
    assert kernel["tensor_core"]
    assert kernel["spills"] == 0


def test_every_launcher_binds_its_arguments() -> None:
    """The interpreter takes another way into a kernel than a launch on a device does."""
    launched = run("launch_report")
    assert set(launched) == {
        "back_substitution_kernel",
        "channel_last_slopes_kernel",
        "hbox_relu_kernel",
        "ibp_affine_kernel",
        "pack_first_kernel",
        "pack_stage_kernel",
        "robust_cross_entropy_kernel",
        "unstable_rows_kernel",
    }
