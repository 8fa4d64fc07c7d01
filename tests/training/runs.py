"""Whole runs on a tiny set, for the tests of runs."""

import io

import numpy as np
from rich.console import Console

from glsk.training import Config, Phase
from glsk.training.batches import Batches
from glsk.training.loop import train
from glsk.training.metrics import read_metrics

TIMES = ("samples_per_s", "step_s", "cpu_s", "bounds_s", "member_samples_per_s", "overhead")


def write_data(path):
    """Ten blurred classes of 8x8 images."""
    random = np.random.RandomState(0)
    centres = random.rand(10, 8, 8)

    def draw(count):
        y = np.arange(count) % 10
        return np.clip(centres[y] + 0.1 * random.randn(count, 8, 8), 0, 1), y

    (x_train, y_train), (x_test, y_test) = draw(40), draw(20)
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return path


def config(data, *, estimator="pgpe", objective="CROWN-IBP", warm_epochs=2, **settings):
    """A PGD warm start, unless it has no epochs, and a phase of the estimator."""
    warm = Phase(name="warm-start", objective="PGD", estimator="grad", epochs=warm_epochs, decay="linear", lr=2e-3)
    main = Phase(objective=objective, estimator=estimator, epochs=3, batch_size=10, milestones=(1,), anneal_epochs=1)
    run = Config(
        dataset=str(data),
        eps=0.02,
        phases=(warm.changed({"batch_size": 16, "attack_steps": 2}), main) if warm_epochs else (main,),
        eval_methods=("IBP", "CROWN-IBP"),
        eval_attack_steps=2,
        eval_attack_restarts=1,
        checkpoint_every=3,
        tensorboard=False,
    )
    population = {"popsize": 6} if estimator.startswith("pgpe") else {}
    return run.override(**{**population, **settings})


def run(settings, out, **arguments):
    console = Console(file=io.StringIO(), width=400)
    results = train(settings, out, console=console, **arguments)
    return results, console.file.getvalue()


def metrics(out):
    """All but the times, exactly."""
    return [{k: v for k, v in r.items() if k not in TIMES} for r in read_metrics(out / "metrics.jsonl")]


def outcome(out):
    weights = {path.name: path.read_bytes() for path in sorted(out.glob("*.safetensors"))}
    results = out / "results.json"
    return metrics(out), weights, results.read_bytes() if results.exists() else None


class StoppedError(Exception):
    pass


def stop_at(monkeypatch, call):
    """The run ends as if killed when its ``call``-th mini-batch is asked for."""
    original, calls = Batches.batch, []

    def batch(self, step):
        calls.append(step)
        if len(calls) == call:
            raise StoppedError
        return original(self, step)

    monkeypatch.setattr(Batches, "batch", batch)


KINDS = {
    "pgpe": {},
    "clipup-centered": {"optimizer": "clipup", "ranking": "centered", "eval_every": 4},
    "grad": {"estimator": "grad", "warm_epochs": 1, "lr": 1e-2},
    "rgs": {"estimator": "rgs", "warm_epochs": 1, "lr": 1e-2, "members": 4},
    "pgpe-cv": {"estimator": "pgpe-cv", "eval_every": 4},
    "pgpe-cv-members": {"estimator": "pgpe-cv", "control_members": 2, "optimizer": "clipup"},
    "adversarial": {"objective": "PGD", "attack_steps": 2},
    "augmented": {"augment": True, "warm_epochs": 1},
}
LATE = ("pgpe", "clipup-centered", "pgpe-cv", "augmented")
"""Those that a GPU runs behind with."""
