"""Whole runs on a tiny set, for the tests of runs."""

import io

import numpy as np
from rich.console import Console

from glsk.training import Config
from glsk.training.batches import Batches
from glsk.training.loop import train
from glsk.training.metrics import read_metrics

TIMES = ("samples_per_s", "step_s", "bounds_s", "member_samples_per_s", "overhead")


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


def config(data, **settings):
    defaults = {
        "dataset": str(data),
        "eps": 0.02,
        "method": "CROWN-IBP",
        "warm_epochs": 2,
        "warm_batch_size": 16,
        "warm_attack_steps": 2,
        "epochs": 3,
        "batch_size": 10,
        "milestones": (1,),
        "anneal_epochs": 1,
        "popsize": 6,
        "eval_methods": ("IBP", "CROWN-IBP"),
        "attack_steps": 2,
        "attack_restarts": 1,
        "checkpoint_every": 3,
        "tensorboard": False,
    }
    return Config(**{**defaults, **settings})


def run(settings, out, **arguments):
    console = Console(file=io.StringIO(), width=400)
    results = train(settings, out, console=console, **arguments)
    return results, console.file.getvalue()


def metrics(out):
    """All but the times, exactly."""
    return [{k: v for k, v in r.items() if k not in TIMES} for r in read_metrics(out / "metrics.jsonl")]


def outcome(out):
    names = ("weights.safetensors", "results.json", *(f"{s}.safetensors" for s in ("warm-start", "pgpe", "grad")))
    return metrics(out), {name: (out / name).read_bytes() for name in names if (out / name).exists()}


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
    "grad": {"algorithm": "grad", "warm_epochs": 1, "lr": 1e-2},
    "augmented": {"augment": True, "warm_epochs": 1},
}
