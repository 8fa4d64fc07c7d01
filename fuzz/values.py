"""Runs a target of values: rounds of hypothesis, each of one seed, until the time is up."""

import time
from pathlib import Path
from typing import Any

import hypothesis
import torch
from hypothesis import HealthCheck

from fuzz import targets

EXAMPLES = 25
"""Of a round; a crash of the process is found again by the input that was saved before it."""


def run(name: str, seconds: float, seed: int, findings: Path) -> int:
    """How many inputs were tried. Raises what a check raises, its smallest input then being saved in ``findings``."""
    target, saved = targets.load(name), findings / f"{name}-{seed}.pt"
    tried, end = 0, time.monotonic() + seconds
    settings = hypothesis.settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )

    def check(value: Any) -> None:
        nonlocal tried
        tried += 1
        torch.save(value, saved)  # hypothesis tries the smallest failing input last
        target.check(value)

    while time.monotonic() < end:
        hypothesis.seed(seed)(settings(hypothesis.given(target.inputs())(check)))()
        seed += 1
    saved.unlink(missing_ok=True)
    return tried


def replay(name: str, path: Path) -> None:
    """Check one saved input, which is a pickle: only of your own."""
    targets.load(name).check(torch.load(path, weights_only=False))
