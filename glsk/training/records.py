"""The lines of metrics.jsonl."""

from collections.abc import Mapping
from typing import Any

from glsk.training.stage import Stage
from glsk.verify import Evaluation


def step_record(stage: Stage, index: int, step: int, found: Mapping[str, float], seconds: float) -> dict[str, Any]:
    """What step ``index`` (0-based) of ``stage``, step ``step`` of the run (1-based), has found.

    ``seconds`` run from the end of the previous step, so nothing goes unaccounted. A late stage says so itself, by the
    device's clock: the host may have read two steps at once.
    """
    rest = dict(found)
    seconds = rest.pop("step_s", seconds)
    samples, members, bounds_s = rest.pop("samples"), rest.pop("members", 1), rest.pop("bounds_s")
    record = {
        "step": step,
        "stage": stage.name,
        "epoch": index // stage.steps_per_epoch,
        **rest,
        "samples_per_s": samples / seconds,
        "step_s": seconds,
    }
    if bounds_s:
        record.update(
            bounds_s=bounds_s, member_samples_per_s=members * samples / bounds_s, overhead=1 - bounds_s / seconds
        )
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
