"""Signals: a run stops with a checkpoint, says how it goes on, and ends in the same bits."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import glsk
from glsk import stopping
from glsk.estimators import pgpe
from glsk.stopping import Stopped
from glsk.training import checkpoint, loop
from glsk.training.batches import Batches
from glsk.training.metrics import Metrics
from tests.training.runs import KINDS, LATE, StoppedError, config, outcome, run, write_data

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data") / "tiny.npz")


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """The outcome of a run that nothing stops, by its settings."""
    known = {}

    def of(**settings):
        key = repr(settings)
        if key not in known:
            out = tmp_path_factory.mktemp("whole") / "out"
            run(config(data, **settings), out)
            known[key] = outcome(out)
        return known[key]

    return of


def signal_at(monkeypatch, owner, name, call, number, after=False):
    """The process gets the signal in the ``call``-th call of a function."""
    original, calls = getattr(owner, name), []

    def wrapped(*args, **kwargs):
        calls.append(1)
        if len(calls) == call and not after:
            signal.raise_signal(number)
        found = original(*args, **kwargs)
        if len(calls) == call and after:
            signal.raise_signal(number)
        return found

    monkeypatch.setattr(owner, name, wrapped)


@pytest.mark.parametrize(
    ("late", "kind", "step"),
    [(late, "pgpe", step) for late in (False, True) for step in (1, 2, 5, 14)]
    + [(False, kind, 8) for kind in KINDS]
    + [(True, kind, 8) for kind in LATE],
)
def test_a_signal_in_a_step_stops_after_it_with_a_checkpoint(data, whole, tmp_path, monkeypatch, kind, late, step):
    expected = whole(**KINDS[kind])
    settings = config(data, **KINDS[kind])
    number = SIGNALS[step % 3]
    monkeypatch.setattr(pgpe, "runs_behind", lambda device: late)
    with monkeypatch.context() as patch:
        signal_at(patch, Batches, "batch", step, number)
        with pytest.raises(Stopped, match=f"stopped by {signal.Signals(number).name} after step {step}; go on") as stop:
            run(settings, tmp_path / "out")
    assert stop.value.exit_code == 128 + number
    assert str(stop.value).endswith(f"glsk train --resume --out {tmp_path / 'out'}")
    assert checkpoint.latest(tmp_path / "out" / "checkpoints").step == step
    _, said = run(settings, tmp_path / "out", resume=True)
    assert f"resumed at step {step}" in said
    assert "not bit for bit" not in said
    assert outcome(tmp_path / "out") == expected


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("line", [2, 4, 7, 8, 17])  # the fifth is the evaluation of the warm start
def test_a_signal_between_two_steps_waits_until_no_step_is_queued(data, whole, tmp_path, monkeypatch, late, line):
    expected, settings = whole(), config(data)
    monkeypatch.setattr(pgpe, "runs_behind", lambda device: late)
    with monkeypatch.context() as patch:
        signal_at(patch, Metrics, "write", line, signal.SIGTERM, after=True)
        with pytest.raises(Stopped):
            run(settings, tmp_path / "out")
    step = line - (line > 4)
    assert checkpoint.latest(tmp_path / "out" / "checkpoints").step - step in ((0, 1) if late else (0,))
    run(settings, tmp_path / "out", resume=True)
    assert outcome(tmp_path / "out") == expected


@pytest.mark.parametrize("evaluation", [1, 2, 3, 4])  # a phase's, two in between, a phase's
def test_a_signal_in_an_evaluation_does_not_wait_for_it(data, whole, tmp_path, monkeypatch, evaluation):
    expected = whole(eval_every=4)
    settings = config(data, eval_every=4, checkpoint_every=100)
    step = 4 * evaluation
    with monkeypatch.context() as patch:
        signal_at(patch, loop, "evaluate", evaluation, signal.SIGTERM)
        with pytest.raises(Stopped, match=f"after step {step}; go on"):
            run(settings, tmp_path / "out")
    run(settings, tmp_path / "out", resume=True)
    assert outcome(tmp_path / "out") == expected


def test_a_kill_between_a_phases_evaluation_and_its_checkpoint_repeats_no_line(data, whole, tmp_path, monkeypatch):
    expected, settings = whole(eval_every=4), config(data, eval_every=4)

    def killed(*_):
        raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_weights", killed)
        with pytest.raises(StoppedError):
            run(settings, tmp_path / "out")
    run(settings, tmp_path / "out", resume=True)
    assert outcome(tmp_path / "out") == expected


@pytest.mark.parametrize("write", [2, 4, 6])
def test_a_second_signal_while_the_checkpoint_is_written_spoils_nothing(data, whole, tmp_path, monkeypatch, write):
    expected, settings, out = whole(), config(data), tmp_path / "out"
    with monkeypatch.context() as patch:
        signal_at(patch, Batches, "batch", 3 * (write - 1), signal.SIGINT)  # in a step, so it waits
        original = os.fsync

        def fsync(descriptor):
            if stopping.asked():
                signal.raise_signal(signal.SIGINT)
            original(descriptor)

        patch.setattr(os, "fsync", fsync)
        with pytest.raises(Stopped, match=r"the last checkpoint is of step \d+; go on"):
            run(settings, out)
    assert not [path for path in out.rglob("*") if path.name.endswith(".tmp")]
    run(settings, out, resume=True)
    assert outcome(out) == expected


def test_a_signal_before_the_run_leaves_nothing(data, tmp_path, monkeypatch):
    signal_at(monkeypatch, loop, "load", 1, signal.SIGHUP)
    with pytest.raises(Stopped, match="stopped by SIGHUP before the first step; nothing is lost") as stop:
        run(config(data), tmp_path / "out")
    assert stop.value.exit_code == 129
    assert not (tmp_path / "out").exists()


def test_the_message_says_where_the_data_are(data, tmp_path):
    text = loop._Run(config(data), tmp_path, "/some where", None)
    text.saved = 0
    assert text.where(Stopped(signal.SIGINT)).endswith("--data '/some where'")


def test_handlers_come_back_and_what_is_ignored_stays_ignored(data, tmp_path, monkeypatch):
    before = [signal.getsignal(number) for number in SIGNALS]
    hangup = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with monkeypatch.context() as patch:
            signal_at(patch, Batches, "batch", 3, signal.SIGHUP)
            run(config(data, warm_epochs=0, epochs=1), tmp_path / "out")
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, hangup)
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_blocked_signals_reach_no_child():
    with stopping.blocked():
        ended = subprocess.run(
            [sys.executable, "-S", "-c", "import signal, sys; sys.exit(len(signal.pthread_sigmask(0, [])))"]
        )
    assert ended.returncode == 3
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, []) & set(SIGNALS)


SCRIPT = """
import importlib.abc, os, signal, sys
{place}
from glsk.cli import app
app()
"""
PLACES = {
    "import": """
class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "glsk.training.loop":
            os.kill(os.getpid(), NUMBER)
sys.meta_path.insert(0, Finder())
""",
    "data": """
import glsk.data.load as module
import glsk.training.loop as loop
original = loop.load
def load(*args):
    os.kill(os.getpid(), NUMBER)
    return original(*args)
loop.load = load
""",
    "warm start": """
from glsk.training.batches import Batches
original = Batches.batch
def batch(self, step):
    os.kill(os.getpid(), NUMBER)
    return original(self, step)
Batches.batch = batch
""",
}


@pytest.mark.parametrize(("place", "number"), zip(PLACES, SIGNALS, strict=True))
def test_the_command_ends_with_one_line_and_the_conventional_code(data, tmp_path, place, number):
    script = SCRIPT.format(place=PLACES[place].replace("NUMBER", str(int(number))))
    arguments = ("train", "--data", str(data), "--out", str(tmp_path / "out"), "--set", "tensorboard=no")
    environment = {**os.environ, "PYTHONPATH": str(Path(glsk.__file__).parents[1])}
    ended = subprocess.run(
        [sys.executable, "-c", script, *arguments], env=environment, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 128 + number, ended.stderr
    lines = [line for line in ended.stderr.splitlines() if not line.startswith(("glsk: bounds by", "warm-start 1"))]
    assert len(lines) == 1, ended.stderr
    expected = "after step 1; go on" if place == "warm start" else "before"
    assert lines[0].startswith(f"glsk: stopped by {number.name} {expected}")
    assert ended.stdout == ""
