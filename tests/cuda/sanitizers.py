"""The emulation under the compiler's own runtimes, in programs of their own: Python has not loaded those."""

import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from tests.cuda import emulation
from tests.cuda.emulation import Variant

THREADS = Variant("threads", ("-O1", "-fsanitize=thread"), ("-fsanitize=thread",), ("emulate_threads.cpp",), ("-O1",))
"""ThreadSanitizer, over the kernels alone: it takes their threads for its own."""

# Not optimised: compiled in half the time, and every access of the source is there.
_BOTH = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
ADDRESSES = Variant("addresses", ("-O0", *_BOTH), _BOTH, ("emulate_addresses.cpp",), ("-O0", *_BOTH))
"""AddressSanitizer and UndefinedBehaviorSanitizer, over the kernels and the emulator."""

RUNTIMES = {THREADS: "ThreadSanitizer", ADDRESSES: "AddressSanitizer"}

_OPTIONS = {
    "TSAN_OPTIONS": "",
    "ASAN_OPTIONS": "detect_leaks=0",  # looking for leaks may not be allowed, as in containers
    "UBSAN_OPTIONS": "print_stacktrace=1",
}


def run(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The program's end and all that it says; with its memory at fixed places, or old runtimes may refuse to start."""
    command = [*_fixed_places(), str(program), *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.run(command, text=True, env={**os.environ, **_OPTIONS}, **pipes)


@cache
def missing(variant: Variant) -> str | None:
    """Why programs of the variant cannot be built or run here, or None."""
    if (reason := emulation.missing()) is not None:
        return reason
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder) / "empty.cpp", Path(folder) / "empty"
        source.write_text("int main() { return 0; }\n")
        flags = " ".join(variant.link)
        command = ["g++", *variant.link, str(source), "-o", str(made)]
        compiled = subprocess.run(command, text=True, capture_output=True)
        if compiled.returncode != 0:
            return f"g++ cannot link {flags}: {compiled.stderr.strip()}"
        if (ran := run(made)).returncode != 0:
            return f"what g++ makes with {flags} does not run here: {ran.stdout.strip()}"
    return None


@cache
def _fixed_places() -> tuple[str, ...]:
    command = ("setarch", "-R")
    if shutil.which("setarch") is None or subprocess.run([*command, "true"], capture_output=True).returncode != 0:
        return ()
    return command
