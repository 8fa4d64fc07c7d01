"""Every kernel of CNN3 and CNN5 compiled to machine code, without a GPU: no spills, within shared memory, tensor cores."""

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


def compile_for(capability: int, *nets: str) -> list[dict[str, object]]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.kernels.compile_report", str(capability), *nets]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


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
    """Two programs' scratch slices a multiprocessor are of use only if two programs fit."""
    assert all(k["programs"] >= 2 for k in compiled[capability])


@pytest.mark.parametrize("capability", [100, 120])
def test_newer_devices_are_compiled_for(capability: int) -> None:
    (kernel,) = compile_for(capability)
    assert kernel["tensor_core"]
    assert kernel["spills"] == 0
