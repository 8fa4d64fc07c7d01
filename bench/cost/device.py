"""What a device does a second, and how long counted work takes on it."""

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path

PARTITIONS = 4
"""Of a multiprocessor; each issues one instruction a cycle, of 32 threads, to its own units."""
SHARED_BYTES = 128
"""Of shared memory, a cycle and multiprocessor."""
SHARED_LIMIT = 227 << 10
"""Bytes of shared memory that a thread block of an H100 can have."""
BUSY = {2: 0.8, 1: 0.55}
"""Assumed share of the time in which the busiest resource is busy, by how many warps a partition has (2: or more)."""


@dataclass(frozen=True)
class Work:
    """What one (member, sample) of a pass asks for.

    Attributes:
        useful: multiply-adds that the mathematics asks for.
        executed: multiply-adds with padding; of float32 numbers, however many products each is made of.
        fma: multiply-adds on CUDA cores.
        mma: tensor-core products m16n8k16 of 16-bit numbers by ``mma.sync``.
        wgmma: the same by ``wgmma``.
        instructions: issued, each for the 32 threads of a warp.
        shared, l2, hbm: bytes.
    """

    useful: float = 0.0
    executed: float = 0.0
    fma: float = 0.0
    mma: float = 0.0
    wgmma: float = 0.0
    instructions: float = 0.0
    shared: float = 0.0
    l2: float = 0.0
    hbm: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def times(self, count: float) -> "Work":
        return Work(*(count * getattr(self, f.name) for f in fields(self)))


@dataclass(frozen=True)
class Device:
    """Rates of a GPU; the defaults are an H100 SXM's.

    Attributes:
        source: where the rates come from.
        multiprocessors, clock_hz: 132; the clock is that of a loaded device, below the data sheet's boost.
        fma_per_s: 128 a cycle and multiprocessor, by the data sheet.
        mma_m16n8k16_per_s: one in 4 cycles and partition by the data sheet, of which ``mma.sync``, without ``wgmma``,
            reaches about 62 % (arXiv:2402.13499).
        wgmma_m16n8k16_per_s: the data sheet's.
        l2_bytes_per_s: as others have measured it.
        hbm_bytes_per_s: the data sheet's.
    """

    source: str = "data sheet"
    multiprocessors: int = 132
    clock_hz: float = 1.755e9
    fma_per_s: float = 128 * 132 * 1.755e9
    mma_m16n8k16_per_s: float = 0.625 * 132 * 1.755e9
    wgmma_m16n8k16_per_s: float = 132 * 1.755e9
    l2_bytes_per_s: float = 5.5e12
    hbm_bytes_per_s: float = 3.35e12

    @classmethod
    def measured(cls, path: Path) -> "Device":
        """The rates that ``python -m bench.gpu.constants --out PATH`` has written; the rest is the data sheet's."""
        found = json.loads(path.read_text())
        known = {f.name: found[f.name] for f in fields(cls) if f.name in found}
        if not known:
            raise ValueError(f"{path}: holds none of the constants of a device")
        return replace(cls(), **known, source=f"measured: {found.get('device', path.name)}")

    def times(self, work: Work) -> dict[str, float]:
        """Seconds that each resource is busy, on the whole device."""
        cycles = self.clock_hz * self.multiprocessors
        return {
            "FMA": work.fma / self.fma_per_s,
            "tensor cores": work.mma / self.mma_m16n8k16_per_s + work.wgmma / self.wgmma_m16n8k16_per_s,
            "instructions": work.instructions / (PARTITIONS * cycles),
            "shared memory": work.shared / (SHARED_BYTES * cycles),
            "L2": work.l2 / self.l2_bytes_per_s,
            "HBM": work.hbm / self.hbm_bytes_per_s,
        }


@dataclass(frozen=True)
class Cost:
    """One pass, for one (member, sample), nothing pruned.

    Attributes:
        kernel: what serves it.
        where: its tile, and where coefficients lie.
        warps: resident on a multiprocessor.
        registers: of a thread, 0 where no compiled code was read.
    """

    kernel: str
    where: str
    work: Work
    warps: int
    registers: int = 0

    def seconds(self, device: Device) -> float:
        """The busiest resource, which is busy for a share of the time; the others overlap with it."""
        return max(device.times(self.work).values()) / BUSY[min(2, max(1, self.warps // PARTITIONS))]

    def bound(self, device: Device) -> str:
        times = device.times(self.work)
        return max(times, key=lambda name: times[name])


def resident(registers: int, shared: int, warps: int) -> int:
    """Warps on a multiprocessor of thread blocks of ``warps``, by registers (a warp's in units of 256) and memory."""
    by_registers = PARTITIONS * (16384 // (-(-registers * 32 // 256) * 256)) // warps
    return warps * min(by_registers, SHARED_LIMIT // (shared + 1024), 64 // warps)
