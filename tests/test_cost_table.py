"""The table of what each pass should cost is that of the code as it is."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import glsk
from bench import cost_backward, passes
from glsk import models

ROOT = Path(__file__).resolve().parents[1]


def run(*arguments: str) -> subprocess.CompletedProcess:
    """A process without the interpreter, which cannot compile."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("command", [("-m", "bench.cost_table"), ("bench/cost_model.py",)])
def test_the_tables_are_up_to_date(command: tuple[str, ...]) -> None:
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed")
    done = run(*command, "--check")
    if "cannot be" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr


def test_the_table_sends_passes_where_the_backend_does() -> None:
    of_backend, of_table = (
        re.search(r"^TRITON_FROM = (\S+)", (ROOT / path).read_text(), re.MULTILINE)[1]
        for path in ("glsk/backends/cuda_select.py", "bench/cost_table.py")
    )
    assert of_backend == of_table


def test_a_gradient_is_three_times_the_arithmetic_of_a_pass() -> None:
    layers = glsk.BoundedModule(models.build("cnn3"), (1, 28, 28)).chain.geometry
    hidden, margins = cost_backward.cost(layers[:2], None), cost_backward.cost(layers, 9)
    assert hidden.useful == 3 * 784 * 4 * 4 * 8 * (1 + 5 * 5)  # an inner row's taps, and each one's below
    assert 1.4e6 < margins.useful - 3 * 9 * 392 * 10 < 3 * 9 * (392 * 4 * 4 * 8 + 1568 * 5 * 5)  # less what is padding
    assert hidden.executed == hidden.useful  # a position has sixteen rows and sides, a group's lanes
    assert margins.executed == pytest.approx(margins.useful * 12 / 9)


def test_a_measured_time_takes_its_place(tmp_path: Path) -> None:
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed")
    for time, ns in (("2026-01-02", 150.4), ("2026-01-01", 99.0)):
        content = {
            "machine": {"time": time, "device": "H100"},
            "passes": [{"net": "cnn3", "pass": "layer 1", "ns": ns}],
        }
        (tmp_path / f"gpu-{time}.json").write_text(json.dumps(content))
    script = (
        "from pathlib import Path; from bench import cost_table; "
        f"cost_table.RESULTS = Path({str(tmp_path)!r}); "
        "print(cost_table.measured('cnn3', 'layer 1'), '|', cost_table.measured('cnn5', 'layer 1'))"
    )
    done = run("-c", script)
    assert done.stdout.strip() == "150 (H100) | not yet", done.stderr


def test_every_pass_is_measured() -> None:
    found = passes.measure("cnn3", 2, 1, "cpu", "reference", repeats=1)
    assert [row["pass"] for row in found] == ["layer 1", "margins"]
    assert all(row["ns"] > 0 for row in found)
