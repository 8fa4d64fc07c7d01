"""One target a file.

A target of values has ``inputs()``, a hypothesis strategy, and ``check(value)``; one of files has ``seeds()``, good
content as bytes, and ``check(data)``. ``check`` raises on a finding.
"""

from importlib import import_module
from types import ModuleType

VALUES = ("bounds_agree", "bounds_sound", "raw_ops")
"""Run by hypothesis, in the sanitized extension."""

FILES = ("idx", "cifar", "npz", "weights", "checkpoint", "config", "metrics", "vnnlib", "onnx", "state_dict")
"""Run by coverage-guided mutation, in little memory."""

NAMES = (*VALUES, *FILES)


def load(name: str) -> ModuleType:
    """The module of a target. Raises ValueError for an unknown name."""
    if name not in NAMES:
        raise ValueError(f"target: unknown {name!r}; known: {', '.join(NAMES)}")
    return import_module(f"fuzz.targets.{name}")
