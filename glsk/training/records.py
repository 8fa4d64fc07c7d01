"""The lines of metrics.jsonl."""

from collections.abc import Mapping
from typing import Any

from glsk.estimators import Estimator
from glsk.verify import Evaluation


def step_record(
    estimator: Estimator, index: int, step: int, found: Mapping[str, float], seconds: float, cpu_seconds: float
) -> dict[str, Any]:
    """What step ``index`` (0-based) of ``estimator``'s phase, step ``step`` of the run (1-based), has found.

    ``seconds`` run from the end of the previous step, so nothing goes unaccounted, and so do ``cpu_seconds``, of all
    threads of this process; actors add theirs. A late estimator says how long the step took itself, by the device's
    clock: the host may have read two steps at once. ``overhead`` is the share outside bounds and attacks.
    """
    rest = dict(found)
    seconds, cpu_seconds = rest.pop("step_s", seconds), cpu_seconds + rest.pop("elsewhere_cpu_s", 0.0)
    samples, members, bounds_s = rest.pop("samples"), rest.pop("members", 1), rest.pop("bounds_s")
    record = {
        "step": step,
        "stage": estimator.name,
        "epoch": index // estimator.job.steps_per_epoch,
        **rest,
        "samples_per_s": samples / seconds,
        "step_s": seconds,
        "cpu_s": cpu_seconds,
        "bounds_s": bounds_s,
        "overhead": 1 - bounds_s / seconds,
    }
    if bounds_s:
        record["member_samples_per_s"] = members * samples / bounds_s
    return record


def evaluation_record(step: int, result: Evaluation) -> dict[str, Any]:
    """An evaluation of the weights after ``step``."""
    certified = {f"certified {name}": share for name, share in result.certified.items()}
    return {
        "step": step,
        "stage": "evaluation",
        "natural": result.natural,
        "adversarial": result.adversarial,
        **certified,
    }
