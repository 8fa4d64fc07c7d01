"""Whole runs on a tiny set: resuming, results, refusals."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import glsk
from glsk import CheckpointError, NumericalError, objectives
from glsk.estimators import pgpe
from glsk.objectives.base import Objective
from glsk.training import checkpoint
from glsk.training.loop import read_config
from glsk.training.metrics import read_metrics
from glsk.training.weights import load_weights
from tests.training.runs import KINDS, LATE, StoppedError, config, metrics, outcome, run, stop_at, write_data


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Nets this small only lose by sharing; and the cores may be shared already."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data") / "tiny.npz")


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """The outcome of a run that nothing stops, by its kind."""
    known = {}

    def of(kind):
        if kind not in known:
            out = tmp_path_factory.mktemp("whole") / "out"
            run(config(data, **KINDS[kind]), out)
            known[kind] = outcome(out)
        return known[kind]

    return of


# 4 steps of warm start (2 with one epoch), then 12; checkpoints at 0, 3, the phase's start, and every 3 steps of it
@pytest.mark.parametrize(
    ("kind", "stopped"), [("pgpe", n) for n in (1, 3, 5, 6, 9)] + [(kind, n) for kind in KINDS for n in (8, 13)]
)
def test_a_resumed_run_ends_in_the_same_bits(data, whole, tmp_path, monkeypatch, kind, stopped):
    settings = config(data, **KINDS[kind])
    with monkeypatch.context() as patch:
        stop_at(patch, stopped)
        with pytest.raises(StoppedError):
            run(settings, tmp_path / "broken")
    torch.manual_seed(12345)
    _, said = run(settings, tmp_path / "broken", resume=True)
    assert "resumed at step" in said
    assert "not bit for bit" not in said
    assert outcome(tmp_path / "broken") == whole(kind)


@pytest.mark.parametrize("objective", objectives.names())
def test_a_resumed_run_of_any_objective_ends_in_the_same_bits(data, tmp_path, monkeypatch, objective):
    """What is random in it depends on the seed and the step alone."""
    estimator = "pgpe-cv" if objectives.is_differentiable(objective) else "pgpe"
    steps = {name: 1 for name in objectives.settings_type(objective).__dataclass_fields__ if name.endswith("_steps")}
    settings = config(
        data, objective=objective, estimator=estimator, warm_epochs=0, epochs=1, popsize=2, checkpoint_every=2,
        eval_methods=("IBP",), **steps,
    )  # fmt: skip
    run(settings, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_at(patch, 4)
        with pytest.raises(StoppedError):
            run(settings, tmp_path / "broken")
    torch.manual_seed(12345)
    _, said = run(settings, tmp_path / "broken", resume=True)
    assert "not bit for bit" not in said
    assert outcome(tmp_path / "broken") == outcome(tmp_path / "whole")


@pytest.mark.parametrize("kind", LATE)
@pytest.mark.parametrize("stopped", [6, 9])
def test_a_late_run_ends_in_the_same_bits_even_if_resumed(data, whole, tmp_path, monkeypatch, kind, stopped):
    """On a GPU a step's losses are read when the next one is queued; as on the CPU, here."""
    settings, expected = config(data, **KINDS[kind]), whole(kind)
    monkeypatch.setattr(pgpe, "runs_behind", lambda device: True)
    with monkeypatch.context() as patch:
        stop_at(patch, stopped)
        with pytest.raises(StoppedError):
            run(settings, tmp_path / "broken")
    written = metrics(tmp_path / "broken")
    assert written == expected[0][: len(written)]
    done = [record for record in written if record["stage"] != "evaluation"]
    assert len(done) >= stopped - 2  # all but the step that was on the device
    _, said = run(settings, tmp_path / "broken", resume=True)
    assert "not bit for bit" not in said
    assert outcome(tmp_path / "broken") == expected
    assert all(r["bounds_s"] < r["step_s"] for r in read_metrics(tmp_path / "broken/metrics.jsonl") if "bounds_s" in r)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("bad", [3, 4, 12])  # not the last, the last before a checkpoint, the very last
def test_a_loss_that_is_not_finite_reaches_no_file(data, tmp_path, monkeypatch, late, bad):
    settings = config(data, warm_epochs=0, checkpoint_every=4)
    monkeypatch.setattr(pgpe, "runs_behind", lambda device: late)
    original, calls = Objective.__call__, []

    def spoiled(self, batch, params=None):
        calls.append(batch)
        losses = original(self, batch, params)
        return losses * float("nan") if len(calls) == bad else losses

    monkeypatch.setattr(Objective, "__call__", spoiled)
    with pytest.raises(NumericalError, match=f"pgpe: the loss of step {bad} is nan"):
        run(settings, tmp_path / "out")
    assert [record["step"] for record in metrics(tmp_path / "out")] == list(range(1, bad))
    last = checkpoint.latest(tmp_path / "out" / "checkpoints")
    assert last.step < bad
    assert all(value.isfinite().all() for value in last.tensors.values() if value.is_floating_point())


def test_a_run_killed_by_sigkill_ends_in_the_same_bits(data, tmp_path):
    settings = config(data)
    run(settings, tmp_path / "whole")
    script = f"""
import os, signal, torch
from glsk.training import Config
from glsk.training.loop import train
from glsk.training.metrics import Metrics
torch.set_num_threads({torch.get_num_threads()})
written, original = [], Metrics.write
def write(self, record):
    original(self, record)
    written.append(record)
    if len(written) == 12:
        os.kill(os.getpid(), signal.SIGKILL)
Metrics.write = write
train(Config.from_dict({settings.to_dict()!r}), {str(tmp_path / "killed")!r})
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(glsk.__file__).parents[1])}
    ended = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert len(metrics(tmp_path / "killed")) == 12
    _, said = run(settings, tmp_path / "killed", resume=True)
    assert "resumed at step 10" in said
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")


def test_a_damaged_checkpoint_is_passed_over_and_the_end_is_the_same(data, tmp_path, monkeypatch):
    settings = config(data)
    run(settings, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_at(patch, 12)
        with pytest.raises(StoppedError):
            run(settings, tmp_path / "broken")
    newest = max((tmp_path / "broken" / "checkpoints").iterdir())
    newest.write_bytes(newest.read_bytes()[:-100])
    _, said = run(settings, tmp_path / "broken", resume=True)
    assert f"passed over a damaged checkpoint: {newest}" in said
    assert "resumed at step 7" in said
    assert outcome(tmp_path / "broken") == outcome(tmp_path / "whole")


def test_a_run_that_is_done_can_be_resumed_and_stays_as_it_is(data, tmp_path):
    settings = config(data)
    first, _ = run(settings, tmp_path / "out")
    before = outcome(tmp_path / "out")
    again, _ = run(settings, tmp_path / "out", resume=True)
    assert again == first
    assert outcome(tmp_path / "out") == before


def test_the_same_seed_gives_the_same_run_and_another_seed_another(data, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(config(data, seed=seed), tmp_path / name)
    a, b, c = (metrics(tmp_path / name) for name in "abc")
    assert a == b
    assert all(x["loss"] != z["loss"] for x, z in zip(a, c, strict=True) if "loss" in x)


def test_what_a_run_leaves_behind(data, tmp_path):
    settings = config(data, eval_every=8)
    results, said = run(settings, tmp_path / "out")
    assert list(results) == ["warm-start", "pgpe"]
    assert set(results["pgpe"].certified) == {"IBP", "CROWN-IBP"}
    assert json.loads((tmp_path / "out" / "results.json").read_text())["pgpe"] == results["pgpe"].to_dict()
    assert read_config(tmp_path / "out") == settings
    net, description = load_weights(tmp_path / "out" / "weights.safetensors")
    assert description.input_shape == (1, 8, 8)
    assert net(torch.rand(1, 1, 8, 8)).shape == (1, 10)
    records = read_metrics(tmp_path / "out" / "metrics.jsonl")
    evaluations = [r for r in records if r["stage"] == "evaluation"]
    assert [r["step"] for r in evaluations] == [4, 12, 16]  # after each phase, and every 8 steps of pgpe
    assert evaluations[0]["natural"] == results["warm-start"].natural
    assert evaluations[2]["certified CROWN-IBP"] == results["pgpe"].certified["CROWN-IBP"]
    pgpe = [r for r in records if r["stage"] == "pgpe"]
    assert [r["step"] for r in pgpe] == list(range(5, 17))
    assert [r["epoch"] for r in pgpe] == [0] * 4 + [1] * 4 + [2] * 4
    assert all(0 < r["bounds_s"] < r["step_s"] for r in pgpe)
    assert all(r["overhead"] == pytest.approx(1 - r["bounds_s"] / r["step_s"]) for r in pgpe)
    assert [r["eps"] for r in pgpe[:5]] == pytest.approx([0.005, 0.01, 0.015, 0.02, 0.02])
    assert "pgpe 12/12" in said
    assert "samples/s" in said


def test_colour_images_are_normalised_inside_the_net(tmp_path):
    random = np.random.RandomState(0)
    path = tmp_path / "colour.npz"
    x, y = random.randint(0, 256, (40, 8, 8, 3)).astype(np.uint8), np.arange(40) % 10
    np.savez(path, x_train=x, y_train=y, x_test=x[:10], y_test=y[:10])
    run(config(path, augment=True), tmp_path / "out")
    net, description = load_weights(tmp_path / "out" / "weights.safetensors")
    assert description.input_shape == (3, 8, 8)
    np.testing.assert_allclose(net[0].mean, x.mean((0, 1, 2)) / 255, rtol=1e-5)


def test_a_backend_that_is_missing_is_refused_before_any_work(data, tmp_path, monkeypatch):
    monkeypatch.setattr(glsk.backends, "why_missing", lambda name: "it is not here")
    glsk.backends.resolve.cache_clear()
    with pytest.raises(glsk.BackendUnavailableError, match="it is not here"):
        run(config(data, backend="cpu"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_device_that_is_missing_is_refused_before_any_work(data, tmp_path):
    missing = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(ValueError, match=f"device: '{missing}' is not available"):
        run(config(data, device=missing), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_warm_start_alone(data, tmp_path):
    results, _ = run(config(data, epochs=0), tmp_path / "out")
    assert list(results) == ["warm-start"]


def test_a_checkpoint_of_one_run_starts_another(data, tmp_path):
    run(config(data), tmp_path / "a")
    path = max((tmp_path / "a" / "checkpoints").iterdir())
    run(config(data, init=str(path), warm_epochs=0, max_steps=1), tmp_path / "b")
    # one step evaluates and moves nothing
    first, last = (load_weights(tmp_path / n / "weights.safetensors")[0].state_dict() for n in "ab")
    assert all(torch.equal(first[name], last[name]) for name in first)


def test_a_folder_with_a_run_is_not_overwritten(data, tmp_path):
    run(config(data), tmp_path / "out")
    before = outcome(tmp_path / "out")
    with pytest.raises(ValueError, match=r"holds a run already.*--resume"):
        run(config(data), tmp_path / "out")
    assert outcome(tmp_path / "out") == before


def test_settings_cannot_change_on_the_way(data, tmp_path):
    run(config(data), tmp_path / "out")
    with pytest.raises(ValueError, match=r"cannot change.*: pgpe\.popsize \(6 -> 8\)"):
        run(config(data, popsize=8), tmp_path / "out", resume=True)
    run(config(data, checkpoint_every=7), tmp_path / "out", resume=True)


def test_data_cannot_change_on_the_way(data, tmp_path):
    with np.load(data) as file:
        arrays = dict(file)
    path = tmp_path / "changing.npz"
    np.savez(path, **arrays)
    run(config(path), tmp_path / "out")
    np.savez(path, **{**arrays, "y_train": arrays["y_train"][::-1]})
    with pytest.raises(CheckpointError, match="other data"):
        run(config(path), tmp_path / "out", resume=True)


def test_there_must_be_something_to_resume(data, tmp_path):
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        run(config(data), tmp_path / "none", resume=True)
    with pytest.raises(CheckpointError, match="no run to resume"):
        read_config(tmp_path / "none")
