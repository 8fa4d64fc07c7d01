"""Faults put into the kernels of csrc/cuda, each of which the emulator must notice in a small call of the kernel."""

import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.cuda import emulation
from tests.cuda.faults import FAULTS, barriers


@pytest.fixture(scope="module")
def program() -> Path:
    if (reason := emulation.missing()) is not None:
        pytest.skip(reason)
    return emulation.program()


def outcomes(program: Path, *arguments: str) -> dict[str, str]:
    """Of every case, or of those named, its digest or what is wrong."""
    done = subprocess.run([str(program), *arguments], capture_output=True, text=True, check=True)
    parts = re.split(r"^(.+) \| ", done.stdout, flags=re.MULTILINE)
    return dict(zip(parts[1::2], (part.strip() for part in parts[2::2]), strict=True))


@pytest.fixture(scope="module")
def right(program: Path) -> dict[str, str]:
    return outcomes(program)


def test_nothing_is_wrong(right: dict[str, str]) -> None:
    assert right
    for text in right.values():
        assert re.fullmatch("[0-9a-f]{16}", text), text


@pytest.mark.parametrize("order", [("backward", "0"), ("random", "1"), ("random", "2")])
def test_order_changes_nothing(program: Path, right: dict[str, str], order: tuple[str, str]) -> None:
    """Of threads, warps and blocks that run at the same time, interrupted at accesses to memory."""
    assert outcomes(program, "--order", order[0], "--seed", order[1]) == right


def test_every_barrier_is_needed_and_its_loss_noticed(program: Path) -> None:
    """Each barrier of the sources, taken away; none is one that no case reaches."""
    done = subprocess.run([str(program), "--sweep"], capture_output=True, text=True)
    noticed = dict(re.findall(r"^without (\S+) \| (.*)$", done.stdout, flags=re.MULTILINE))
    assert set(noticed) == barriers()
    assert [barrier for barrier, text in noticed.items() if text == "NOT NOTICED"] == []


def test_shared_memory_that_is_too_small(program: Path, right: dict[str, str]) -> None:
    """By four bytes, for every kernel that has some and uses the last of them."""
    found = outcomes(program, "--hide", "4")
    unnoticed = {name for name, text in found.items() if "bytes past the end of shared memory" not in text}
    assert unnoticed == {"elementwise", "intervals of a linear layer"}  # the end of the latter is the tile's padding
    assert all("past the end of" in text or text == right[name] for name, text in found.items())


@pytest.mark.parametrize("fault", ["--shift", "--workspace-shift"])
def test_misaligned_vectors(program: Path, fault: str) -> None:
    """Memory four bytes beside where it should be, for a kernel with vectors in it."""
    done = subprocess.run([str(program), fault, "4", "deep, one group"], capture_output=True, text=True)
    assert re.search(r"misaligned at \S+deep_\w+\.cuh:\d+, for 16 bytes", done.stderr)


# What the emulator says of each; or how else one sees it.
SAID = {
    "a barrier in divergent code": "some threads wait at a barrier that others never reach",
    "one element past the end of shared memory": "shared memory overrun",
    "shared memory for one thread less": "shared memory overrun",
    "one sample too many": "past the end of margins",
    "one element before an input": "4 bytes before margins",
    "past the end of a thread's own array": "another result",
    "a result that is never written": "another result",
    "the edge of a tile that is left out": "nothing has been written there: shared memory",
    "blocks with the same workspace": "without a barrier between: workspace",
    "workspaces that overlap": "without a barrier between: workspace",
    "a workspace too small": "killed by a guard page",
    "a vector beside its place": "misaligned at",
}
QUICK = ("a barrier in divergent code", "shared memory for one thread less", "a result that is never written")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FAULTS]
)
def test_faults_are_noticed(program: Path, right: dict[str, str], name: str, tmp_path: Path) -> None:
    fault, said = FAULTS[name], SAID[name]
    changed = emulation.program(sources=fault.seed(tmp_path))
    done = subprocess.run([str(changed), fault.case], capture_output=True, text=True)
    if said == "killed by a guard page":
        assert done.returncode == -signal.SIGSEGV
    elif said == "another result":
        assert right[fault.case] not in done.stdout
    else:
        assert said in done.stdout + done.stderr
