"""Certified training: a run is a list of phases, such as a PGD warm start and PGPE on the robust loss.

The run itself is :func:`glsk.training.loop.train`; it is imported from there, because it needs more than settings do.
"""

from glsk.training.config import Config
from glsk.training.phase import Phase
from glsk.training.presets import preset

__all__ = ["Config", "Phase", "preset"]
