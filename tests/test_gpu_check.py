"""The check on a GPU, without one: steps that hang, crash or lack tools, a deadline, and a machine that is cold."""

import json
import os
import select
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from bench.gpu import carried, check, constants, epochs, first, small_case, steps
from bench.gpu.steps import STEPS, Step


def step(name: str, program: str, seconds: float = 30, **options: object) -> Step:
    return Step(name, lambda out: [sys.executable, "-c", program.replace("OUT", str(out))], seconds, **options)


def run(out: Path, *given: Step, seconds: float = 60, resume: bool = False, built: bool = True) -> dict[str, str]:
    return {o.name: o.how for o in check.check(given, out, seconds, resume, lambda: built)}


WRITES = step("writes", "open('OUT/found.json', 'w').write('{}'); print('said')")
HANGS = step("hangs", "import subprocess, sys; subprocess.run([sys.executable, '-c', 'while True: pass'])", 0.5)
CRASHES = step("crashes", "import os; os.abort()")


def held(out: Path) -> dict[str, bytes]:
    with tarfile.open(out / check.ARCHIVE) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar.getmembers()}


def test_no_step_stops_the_others(tmp_path: Path) -> None:
    nowhere = step("nowhere", "", tool="no-such-program")
    gone = Step("gone", lambda out: ["/no/such/program"], 5)
    found = run(tmp_path, HANGS, CRASHES, nowhere, gone, WRITES)
    assert found == {
        "hangs": "stopped", "crashes": "failed", "nowhere": "skipped", "gone": "failed", "writes": "passed"
    }  # fmt: skip
    archive = held(tmp_path)
    assert archive["found.json"] == b"{}"
    assert archive["writes.log"] == b"said\n"
    summary = json.loads(archive["summary.json"])
    assert {name: outcome["how"] for name, outcome in summary.items()} == found
    assert summary["nowhere"]["why"] == "no-such-program is not there"
    assert "status -6" in summary["crashes"]["why"]
    assert {path.name for path in tmp_path.iterdir()} == {check.SUMMARY, check.ARCHIVE, check.WORK}  # few to bring back


def test_a_step_that_hangs_takes_its_children_with_it(tmp_path: Path) -> None:
    child = "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'while True: pass']); "
    run(tmp_path, step("hangs", child + "open('OUT/pid', 'w').write(str(p.pid)); p.wait()", 2.0))
    pid = int((tmp_path / check.WORK / "pid").read_text())
    try:
        ended = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    assert select.select([ended], [], [], 20)[0], "the child is still there"


def test_after_the_deadline_steps_are_put_off(tmp_path: Path) -> None:
    assert run(tmp_path, WRITES, seconds=check.GRACE + 1) == {"writes": "put off"}
    assert json.loads((tmp_path / check.SUMMARY).read_text())["writes"]["how"] == "put off"


def test_what_has_passed_is_not_run_again(tmp_path: Path) -> None:
    once = step("once", "import pathlib; pathlib.Path('OUT/once').touch(exist_ok=False)")
    later = step("later", "import pathlib, sys; sys.exit(not pathlib.Path('OUT/once').exists())")
    assert run(tmp_path, once, CRASHES) == {"once": "passed", "crashes": "failed"}
    assert run(tmp_path, once, CRASHES, later, resume=True) == {"crashes": "failed", "later": "passed"}
    assert set(json.loads((tmp_path / check.SUMMARY).read_text())) == {"once", "crashes", "later"}
    assert run(tmp_path, once) == {"once": "failed"}


def test_a_killed_call_leaves_what_was_known(tmp_path: Path) -> None:
    program = f"""
import pathlib
from bench.gpu import check
from tests.test_gpu_check import WRITES, step
kills = step("kills", "import os; os.kill(os.getppid(), 9)")
check.check([WRITES, kills], pathlib.Path({str(tmp_path)!r}), 60, False, lambda: True)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=check.ROOT, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    assert set(held(tmp_path)) == {"summary.json", "found.json", "writes.log"}
    assert run(tmp_path, WRITES, step("kills", ""), resume=True) == {"kills": "passed"}


def test_a_cold_machine_is_built_for_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "STEPS", [step("build", "print(1)", builds=True)])
    assert run(tmp_path, WRITES, built=False) == {"build": "passed", "writes": "passed"}
    assert run(tmp_path, WRITES, built=True) == {"writes": "passed"}


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(check, "STEPS", [WRITES, CRASHES, *(s for s in STEPS if s.builds)])
    monkeypatch.setattr(check.importlib.util, "find_spec", lambda name: object())
    assert check.main(["writes", "--out", str(tmp_path)]) == 0
    assert check.main(["writes", "crashes", "--out", str(tmp_path)]) == 1
    with pytest.raises(SystemExit):
        check.main(["nothing"])
    assert "there is no step nothing" in capsys.readouterr().err


def test_every_step_is_a_command(tmp_path: Path) -> None:
    assert len({s.name for s in STEPS}) == len(STEPS)
    assert set(steps.SANITIZERS) < {s.name for s in STEPS}
    for each in STEPS:
        assert all(isinstance(word, str) and "{out}" not in word for word in each.command(tmp_path))
    module = [s.command(tmp_path) for s in STEPS if s.command(tmp_path)[1] == "-m"]
    for command in module:
        assert __import__("importlib").util.find_spec(command[2]) is not None, command


def test_the_steps_own_programs_on_the_cpu(tmp_path: Path) -> None:
    """What a GPU runs, with the reference in the place of its kernels."""
    small = ["--members", "2", "--samples", "2", "--nets", "cnn3", "--device", "cpu", "--methods", "IBP"]
    images = ["--data", "MNIST", "--backends", "reference"]
    assert first.main([*small, *images, "--out", str(tmp_path / "first.json")]) == 0
    rows = json.loads((tmp_path / "first.json").read_text())["rows"]
    assert {row["precision"] for row in rows} == set(first.MOST)
    assert all(row["error"] <= row["most"] for row in rows)
    assert small_case.main(["--device", "cpu", "--backend", "reference", "--nets", "cnn3", "--methods", "IBP"]) == 0
    assert epochs.main([*small, "--backends", "reference", "--repeats", "1", "--out", str(tmp_path / "e.json")]) == 0
    assert all(row["epoch_s"] > 0 for row in json.loads((tmp_path / "e.json").read_text())["rows"])


def test_a_wrong_bound_is_found(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(first, "errors", lambda *_: iter([{"precision": "ieee", "error": float("inf"), "most": 1e-4}]))
    assert first.main(["--device", "cpu"]) == 1
    assert "WRONG" in capsys.readouterr().out


def test_carried_kernels_are_taken_where_they_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert carried.fitting("90", tmp_path) is None
    (tmp_path / carried.LIBRARY).touch()
    (tmp_path / carried.ORIGIN).write_text(json.dumps(carried.origin(["80", "90"])))
    assert carried.fitting("90", tmp_path) == tmp_path / carried.LIBRARY
    assert carried.fitting("100", tmp_path) is None
    monkeypatch.setattr(carried, "nvcc_version", lambda: "12.4")
    assert carried.fitting("90", tmp_path) is None


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not there")
def test_the_constants_program_compiles(tmp_path: Path) -> None:
    constants.build(tmp_path / "constants", "90")
    assert (tmp_path / "constants").stat().st_size > 0
