"""Runs the steps of a check on a GPU under one deadline; what is known is on disk after every step.

    python -m bench.gpu.check [step ...] [--seconds 570] [--out bench/results/gpu]

All steps, or those named; with ``--resume`` those that have not passed yet. A step that fails, hangs or lacks a tool
does not stop the others; one for which too little time is left is put off. On a machine where glsk's CUDA part is not
built, the build comes first. The folder holds ``summary.json``, and in ``check.tar.gz`` all logs and results.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.gpu.steps import STEPS, Step

ROOT = Path(__file__).resolve().parents[2]
SUMMARY, ARCHIVE, WORK = "summary.json", "check.tar.gz", "work"
LEAST = 10.0
"""Seconds below which a step is not begun."""
GRACE = 5.0
"""Seconds of the deadline kept for what is written at the end."""


@dataclass(frozen=True)
class Outcome:
    """How a step ended: "passed", "failed", "stopped" (by its limit), "skipped" or "put off", and why."""

    name: str
    how: str
    why: str = ""
    seconds: float = 0.0


def check(
    steps: Sequence[Step], out: Path, seconds: float, resume: bool = False, built: Callable[[], bool] | None = None
) -> list[Outcome]:
    """Run the steps; ``seconds`` is the deadline of the whole call."""
    deadline = time.monotonic() + seconds
    (out / WORK).mkdir(parents=True, exist_ok=True)
    known = _read(out) if resume else {}
    steps = [step for step in steps if known.get(step.name, Outcome("", "")).how != "passed"]
    found = built or (lambda: importlib.util.find_spec("glsk._CUDA") is not None)
    if not found() and not any(step.builds for step in steps):
        steps = [*(step for step in STEPS if step.builds), *steps]
    outcomes = []
    for step in steps:
        outcomes.append(_run(step, out, deadline - time.monotonic() - GRACE))
        known[step.name] = outcomes[-1]
        _write(out, known)
        print(f"{step.name}: {outcomes[-1].how} {outcomes[-1].why} ({outcomes[-1].seconds:.0f} s)", flush=True)
    return outcomes


def _run(step: Step, out: Path, left: float) -> Outcome:
    if (reason := step.missing()) is not None:
        return Outcome(step.name, "skipped", reason)
    limit = min(step.seconds, left)
    if limit < min(LEAST, step.seconds):
        return Outcome(step.name, "put off", "too little time is left")
    started = time.monotonic()
    environment = os.environ | {"PYTHONUNBUFFERED": "1"} | dict(step.environment)
    with (out / WORK / f"{step.name}.log").open("wb") as log:
        try:
            # A group of its own, so that all that a step has started ends with it.
            process = subprocess.Popen(
                step.command(out / WORK), cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            return Outcome(step.name, "failed", str(error))
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            _end(process)
            return Outcome(step.name, "stopped", f"after {limit:.0f} s", time.monotonic() - started)
        except BaseException:  # the call itself is being stopped
            _end(process)
            raise
    how, why = ("passed", "") if status == 0 else ("failed", f"with status {status}")
    return Outcome(step.name, how, why, time.monotonic() - started)


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _read(out: Path) -> dict[str, Outcome]:
    path = out / SUMMARY
    if not path.exists():
        return {}
    return {name: Outcome(**outcome) for name, outcome in json.loads(path.read_text()).items()}


def _write(out: Path, known: dict[str, Outcome]) -> None:
    """The summary and the archive, by other names first: a call that is killed leaves those of the step before."""
    summary = out / f"{SUMMARY}.new"
    summary.write_text(json.dumps({name: asdict(outcome) for name, outcome in known.items()}, indent=1) + "\n")
    summary.replace(out / SUMMARY)
    archive = out / f"{ARCHIVE}.new"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(out / SUMMARY, SUMMARY)
        for path in sorted((out / WORK).iterdir()):
            if path.is_file():  # not the weights of a training run
                tar.add(path, path.name)
    archive.replace(out / ARCHIVE)


def main(arguments: Sequence[str] | None = None) -> int:
    names = [step.name for step in STEPS]
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.check", description=__doc__)
    parser.add_argument("steps", nargs="*", metavar="step", help=f"of {', '.join(names)}")
    parser.add_argument("--seconds", type=float, default=570.0, help="deadline of the whole call")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results" / "gpu")
    parser.add_argument("--resume", action="store_true", help="leave out what has passed")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.steps) - set(names)):
        parser.error(f"there is no step {', '.join(unknown)}; there are {', '.join(names)}")
    chosen = [step for step in STEPS if not options.steps or step.name in options.steps]
    outcomes = check(chosen, options.out.resolve(), options.seconds, options.resume)
    return int(any(outcome.how not in ("passed", "skipped") for outcome in outcomes))


if __name__ == "__main__":
    raise SystemExit(main())
