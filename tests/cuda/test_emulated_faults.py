"""Faults put into the kernels of csrc/cuda, each of which the emulator must notice in a small call of the kernel."""

import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.cuda import emulation

BARRIER = re.compile(r"\b(__syncthreads|__syncwarp|named_barrier)\(")


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
    sources = sorted((emulation.ROOT / "csrc" / "cuda").iterdir())
    written = {
        f"{source.name}:{number}"
        for source in sources
        for number, line in enumerate(source.read_text().splitlines(), 1)
        if BARRIER.search(line.partition("//")[0])
    }
    assert set(noticed) == written
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


# file, what stands there, what the fault makes of it, a case, and what is said of it
FAULTS = {
    "a barrier in divergent code": (
        *(
            "loss.cu",
            "        __syncthreads();\n        if (me < half)",
            "        if (me < half) __syncthreads();\n        if (me < half)",
        ),
        *("loss", "some threads wait at a barrier that others never reach"),
    ),
    "one element past the end of shared memory": (
        *("loss.cu", "sums[me] = sum;", "sums[me + 1] = sum;"),
        *("loss", "shared memory overrun"),
    ),
    "shared memory for one thread less": (
        *("loss.cu", "THREADS * sizeof(T)", "(THREADS - 1) * sizeof(T)"),
        *("loss", "shared memory overrun"),
    ),
    "one sample too many": (
        *("loss.cu", "b < samples; b += THREADS", "b <= samples; b += THREADS"),
        *("loss", "past the end of margins"),
    ),
    "a result that is never written": (
        *("elementwise.cu", "if (i >= size) return;", "if (i >= size - 1) return;"),
        *("elementwise", "another result"),
    ),
    "the edge of a tile that is left out": (
        *("ibp.cu", "i < TILE * DEPTH; i += LINEAR_THREADS", "i < TILE * DEPTH - 1; i += LINEAR_THREADS"),
        *("intervals of a linear layer", "nothing has been written there: shared memory"),
    ),
    "blocks with the same workspace": (
        *("pass_general.cu", "2 * pass.workspace_per_block * blockIdx.x", "0 * blockIdx.x"),
        *("general", "without a barrier between: workspace"),
    ),
    "workspaces that overlap": (
        *("pass_deep.cu", "pass.workspace_per_block * blockIdx.x", "(pass.workspace_per_block - 1) * blockIdx.x"),
        *("deep, one group", "without a barrier between: workspace"),
    ),
    "a workspace too small": (
        *("pass_general.cu", "allocate(grid * per_block)", "allocate(grid * per_block / 2)"),
        *("general", "killed by a guard page"),
    ),
    "a vector beside its place": (
        *("deep_tables.cuh", "memory + shape.first", "memory + shape.first + 4"),
        *("deep, one group", "misaligned at"),
    ),
}
QUICK = ("a barrier in divergent code", "shared memory for one thread less", "a result that is never written")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FAULTS]
)
def test_faults_are_noticed(program: Path, right: dict[str, str], name: str, tmp_path: Path) -> None:
    file, old, new, case, said = FAULTS[name]
    text = (emulation.ROOT / "csrc" / "cuda" / file).read_text()
    assert text.count(old) == 1
    (tmp_path / file).write_text(text.replace(old, new))
    unit = next(k for k in emulation.KERNELS if k.name == (file if file.endswith(".cu") else "pass_deep.cu"))
    if unit.name != file:
        (tmp_path / unit.name).write_text(unit.read_text())
    sources = [tmp_path / k.name if k == unit else k for k in emulation.KERNELS]
    changed = emulation.program(sources=sources)
    done = subprocess.run([str(changed), case], capture_output=True, text=True)
    if said == "killed by a guard page":
        assert done.returncode == -signal.SIGSEGV
    elif said == "another result":
        assert right[case] not in done.stdout
    else:
        assert said in done.stdout + done.stderr
