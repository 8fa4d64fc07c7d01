"""The emulated kernels under ThreadSanitizer, and under AddressSanitizer with UndefinedBehaviorSanitizer.

A share of it; all of it where GLSK_SANITIZE is 1 (make sanitize).
"""

import os
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cuda import emulation, sanitizers, small_kernels
from tests.cuda.emulation import Variant
from tests.cuda.faults import FAULTS, barriers
from tests.cuda.sanitizers import ADDRESSES, RUNTIMES, THREADS

ALL = os.environ.get("GLSK_SANITIZE") == "1"
in_full = pytest.mark.skipif(not ALL, reason="make sanitize runs it")

# Of the share: the kernels that are compiled, and the calls of them.
KERNELS = {
    THREADS: ("elementwise.cu", "loss.cu", "pass_deep.cu", "pass_margins.cu", "select.cu"),
    ADDRESSES: ("elementwise.cu", "loss.cu", "pass_margins.cu", "select.cu"),
}
CASES = {
    THREADS: ("deep, three image channels", "margins", "elementwise", "loss"),
    ADDRESSES: ("margins", "elementwise", "loss"),
}
ORDERS = [("forward", "0"), ("random", "1")]


def needed(variant: Variant) -> Variant:
    if (reason := sanitizers.missing(variant)) is not None:
        pytest.fail(reason) if ALL else pytest.skip(reason)
    return variant


def program(variant: Variant, kernels: Iterable[Path] = emulation.KERNELS) -> Path:
    return emulation.program(needed(variant), kernels, () if ALL else KERNELS[variant])


@pytest.fixture(scope="module", params=RUNTIMES, ids=RUNTIMES.values())
def variant(request: pytest.FixtureRequest) -> Variant:
    return needed(request.param)


@pytest.mark.parametrize("order", ORDERS if ALL else ORDERS[1:], ids=lambda order: order[0])
def test_nothing_is_reported(variant: Variant, order: tuple[str, str]) -> None:
    cases = () if ALL else CASES[variant]
    done = sanitizers.run(program(variant), "--order", order[0], "--seed", order[1], *cases)
    assert done.returncode == 0, done.stdout
    assert re.fullmatch(r"(.+ \| [0-9a-f]{16}\n)+", done.stdout), done.stdout


def test_a_runtime_that_is_not_there_is_named() -> None:
    """Where g++ comes without it, as flags that it does not know do."""
    reason = sanitizers.missing(replace(THREADS, link=("-fsanitize=nothing",)))
    assert reason is not None
    assert "g++" in reason


def place(file: str, barrier: str) -> str:
    """Of the first such barrier in a file."""
    lines = (emulation.ROOT / "csrc" / "cuda" / file).read_text().splitlines()
    return f"{file}:{next(number for number, line in enumerate(lines, 1) if barrier in line)}"


@pytest.mark.parametrize(
    ("file", "barrier", "case"),
    [("loss.cu", "__syncthreads()", "loss"), ("deep_image.cuh", "__syncwarp()", "deep, one group")],
)
def test_a_removed_barrier_is_a_data_race(file: str, barrier: str, case: str) -> None:
    done = sanitizers.run(program(THREADS), "--without", place(file, barrier), case)
    assert "WARNING: ThreadSanitizer: data race" in done.stdout
    assert done.returncode != 0


@in_full
def test_every_removed_barrier_is_a_data_race() -> None:
    done = sanitizers.run(program(THREADS), "--sweep")
    found = dict(re.findall(r"^without (\S+) \| [^:]+: (.*)$", done.stdout, flags=re.MULTILINE))
    assert set(found) == barriers()
    assert {barrier: said for barrier, said in found.items() if not said.startswith("ThreadSanitizer: ")} == {}


# What is said of it, and by whom. Of the other faults of the list neither runtime can know: they follow who has
# touched memory, and not whether it holds anything yet, nor who waits for whom.
SAID = {
    "one element past the end of shared memory": (ADDRESSES, "AddressSanitizer: use-after-poison"),
    "shared memory for one thread less": (ADDRESSES, "AddressSanitizer: use-after-poison"),
    "one sample too many": (ADDRESSES, "AddressSanitizer: heap-buffer-overflow"),
    "one element before an input": (ADDRESSES, "AddressSanitizer: heap-buffer-overflow"),
    "past the end of a thread's own array": (
        ADDRESSES,
        "runtime error: index 3 out of bounds for type 'float \\[3\\]'",
    ),
    "blocks with the same workspace": (THREADS, "ThreadSanitizer: data race"),
    "workspaces that overlap": (THREADS, "ThreadSanitizer: data race"),
    "a workspace too small": (ADDRESSES, "AddressSanitizer: heap-buffer-overflow"),
    "a vector beside its place": (ADDRESSES, "runtime error: .* misaligned address"),
}
QUICK = ("one element before an input",)


def test_shared_memory_that_is_too_small() -> None:
    done = sanitizers.run(program(ADDRESSES), "--hide", "4", "margins")
    assert "AddressSanitizer: use-after-poison" in done.stdout
    assert done.returncode != 0


@pytest.mark.parametrize("name", SAID if ALL else QUICK)
def test_faults_are_reported(name: str, tmp_path: Path) -> None:
    variant, said = SAID[name]
    changed = program(variant, FAULTS[name].seed(tmp_path))
    done = sanitizers.run(changed, FAULTS[name].case)
    assert re.search(said, done.stdout), done.stdout
    assert done.returncode != 0


@in_full
def test_small_kernels(variant: Variant, tmp_path: Path) -> None:
    """What orders memory and what does not, as the emulator's own detector has it."""
    kernels = small_kernels.program(variant, tmp_path)
    reports = {
        THREADS: {"race: ": "ThreadSanitizer: data race", "without a barrier": "ThreadSanitizer: data race"},
        ADDRESSES: {"shared memory overrun": "AddressSanitizer: ", "misaligned at ": "misaligned address"},
    }[variant]
    for number, (name, (_, said)) in enumerate(small_kernels.KERNELS.items()):
        done = sanitizers.run(kernels, str(number))
        wanted = next((report for kind, report in reports.items() if kind in said), said if "threads" in said else "")
        assert wanted in done.stdout, name
        assert "Sanitizer" not in done.stdout or "Sanitizer" in wanted, done.stdout
