"""Faults that tests put into the kernels of csrc/cuda, and the barriers that they take away."""

import re
from dataclasses import dataclass
from pathlib import Path

from tests.cuda import emulation

BARRIER = re.compile(r"\b(__syncthreads|__syncwarp|named_barrier)\(")


@dataclass(frozen=True)
class Fault:
    """Where ``old`` stands in a file, ``new`` does; ``case`` (emulated_cases.cpp) must show it."""

    file: str
    old: str
    new: str
    case: str

    def seed(self, folder: Path) -> list[Path]:
        """The kernels with the fault; what it changes is in the folder."""
        text = (emulation.ROOT / "csrc" / "cuda" / self.file).read_text()
        assert text.count(self.old) == 1
        (folder / self.file).write_text(text.replace(self.old, self.new))
        name = self.file if self.file.endswith(".cu") else "pass_deep.cu"
        unit = next(kernel for kernel in emulation.KERNELS if kernel.name == name)
        if name != self.file:
            (folder / name).write_text(unit.read_text())
        return [folder / name if kernel == unit else kernel for kernel in emulation.KERNELS]


FAULTS = {
    "a barrier in divergent code": Fault(
        "loss.cu",
        "        __syncthreads();\n        if (me < half)",
        "        if (me < half) __syncthreads();\n        if (me < half)",
        "loss",
    ),
    "one element past the end of shared memory": Fault("loss.cu", "sums[me] = sum;", "sums[me + 1] = sum;", "loss"),
    "shared memory for one thread less": Fault("loss.cu", "THREADS * sizeof(T)", "(THREADS - 1) * sizeof(T)", "loss"),
    "one sample too many": Fault("loss.cu", "b < samples; b += THREADS", "b <= samples; b += THREADS", "loss"),
    "one element before an input": Fault(
        "loss.cu", "T powers = exp(-top);", "T powers = exp(-top) + margin[-1];", "loss"
    ),
    "past the end of a thread's own array": Fault("pass_margins.cu", "+= sum[v];", "+= sum[v + 1];", "margins"),
    "a result that is never written": Fault(
        "elementwise.cu", "if (i >= size) return;", "if (i >= size - 1) return;", "elementwise"
    ),
    "the edge of a tile that is left out": Fault(
        "ibp.cu",
        "i < TILE * DEPTH; i += LINEAR_THREADS",
        "i < TILE * DEPTH - 1; i += LINEAR_THREADS",
        "intervals of a linear layer",
    ),
    "blocks with the same workspace": Fault(
        "pass_general.cu", "2 * pass.workspace_per_block * blockIdx.x", "0 * blockIdx.x", "general"
    ),
    "workspaces that overlap": Fault(
        "pass_deep.cu",
        "pass.workspace_per_block * blockIdx.x",
        "(pass.workspace_per_block - 1) * blockIdx.x",
        "deep, one group",
    ),
    "a workspace too small": Fault(
        "pass_general.cu", "allocate(grid * per_block)", "allocate(grid * per_block / 2)", "general"
    ),
    "a vector beside its place": Fault(
        "deep_tables.cuh", "memory + shape.first", "memory + shape.first + 4", "deep, one group"
    ),
}


def barriers() -> set[str]:
    """Every barrier in the sources, as FILE:LINE."""
    return {
        f"{source.name}:{number}"
        for source in sorted((emulation.ROOT / "csrc" / "cuda").iterdir())
        for number, line in enumerate(source.read_text().splitlines(), 1)
        if BARRIER.search(line.partition("//")[0])
    }
