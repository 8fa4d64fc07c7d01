"""Certified training: a PGD warm start, then PGPE (or the plain gradient) on the robust loss.

The run itself is :func:`glsk.training.loop.train`; it is imported from there, because it needs evotorch and more.
"""

from glsk.training.config import Config
from glsk.training.presets import PRESETS, preset

__all__ = ["PRESETS", "Config", "preset"]
