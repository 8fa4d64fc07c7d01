"""What the compiler made of the CUDA kernels: registers, and the instructions of their loops."""

import importlib.util
import re
import shutil
import subprocess
from collections import Counter
from functools import cache
from pathlib import Path

ARCH = "90"


def nvcc() -> str | None:
    return shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")


def cuobjdump() -> str | None:
    """Of CUDA's toolkit or of Triton's package."""
    spec = importlib.util.find_spec("triton")
    packaged = Path(spec.origin).parent / "backends" / "nvidia" / "bin" / "cuobjdump" if spec and spec.origin else None
    candidates = ["cuobjdump", "/usr/local/cuda/bin/cuobjdump", str(packaged)]
    return next((path for name in candidates if (path := shutil.which(name))), None)


def nvcc_version() -> str:
    """Of the nvcc that builds here, "unknown" without one."""
    compiler = nvcc()
    text = subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout if compiler else ""
    found = re.search(r"release ([\d.]+)", text)
    return found[1] if found else "unknown"


def disassembled(made: Path, arch: str = ARCH, function: str | None = None) -> str:
    """The machine code of an object, a library or an extension, or of one function in it. Needs cuobjdump."""
    command = [str(cuobjdump()), "--dump-sass", "--gpu-architecture", f"sm_{arch}"]
    command += ["--function", function] if function else []
    return subprocess.run([*command, str(made)], capture_output=True, text=True, check=True).stdout


def loops(sass: str, name: str) -> list[Counter[str]]:
    """The instructions of every loop of a kernel, by opcode with its width: ``LDS.128``."""
    function = next(part for part in sass.split("Function : ")[1:] if name in part.split("\n", 1)[0])
    lines = re.findall(r"^\s+/\*([0-9a-f]{4,5})\*/\s+(?:@!?U?P\w+\s+)?([^;]*);", function, re.MULTILINE)
    at = {int(address, 16): i for i, (address, _) in enumerate(lines)}
    found = []
    for i, (address, text) in enumerate(lines):
        branch = re.match(r"BRA\S*\s.*?0x([0-9a-f]+)", text)
        if branch and int(branch[1], 16) < int(address, 16):
            found.append(Counter(text.split()[0] for _, text in lines[at[int(branch[1], 16)] : i + 1]))
    return found


class Compiled:
    """The kernels in a built extension, for sm_90."""

    def __init__(self, path: Path) -> None:
        self.path = path
        usage = subprocess.run(
            [str(cuobjdump()), "--dump-resource-usage", str(path)], check=True, capture_output=True, text=True
        ).stdout
        parts = re.split(r"(?=^arch = )", usage, flags=re.MULTILINE)
        text = "".join(part for part in parts if part.startswith(f"arch = sm_{ARCH}"))
        self.kernels = {m[1]: int(m[2]) for m in re.finditer(r"Function (\S+):\s*REG:(\d+)", text)}

    def _name(self, part: str) -> str:
        found = next((name for name in self.kernels if part in name), None)
        if found is None:
            raise SystemExit(f"{self.path} holds no {part} for sm_{ARCH}: build it with GLSK_CUDA_ARCHS={ARCH}")
        return found

    def registers(self, part: str) -> int:
        """Of a thread of the kernel whose mangled name holds ``part``."""
        return self.kernels[self._name(part)]

    def loops(self, part: str) -> list[Counter[str]]:
        return _loops(self.path, self._name(part))

    def fma_share(self, part: str, least: int) -> float:
        """Fused multiply-adds among the instructions of the leanest loop that has ``least`` of them or more."""
        shares = [loop["FFMA"] / loop.total() for loop in self.loops(part) if loop["FFMA"] >= least]
        return max(shares)


@cache
def _loops(path: Path, name: str) -> list[Counter[str]]:
    return loops(disassembled(path, function=name), name)


def extension() -> Path | None:
    """Where glsk._CUDA is: not beside the Python files in an editable install."""
    found = importlib.util.find_spec("glsk._CUDA")
    return Path(found.origin) if found is not None and found.origin is not None else None


def why_unreadable(path: Path | None) -> str | None:
    """Why the compiled kernels in a file cannot be counted here, or None."""
    if path is None:
        return "glsk._CUDA is not built"
    if cuobjdump() is None:
        return "cuobjdump is not there"
    return None if Compiled(path).kernels else f"{path.name} is not built for sm_{ARCH}"
