"""What trained networks and their runs look like: numbers first, and pictures of them."""

from glsk.analysis.landscape import LandscapeSettings, landscape
from glsk.analysis.runs import Run, read_runs
from glsk.analysis.table import final_accuracies
from glsk.analysis.tightness import tightness

__all__ = ["LandscapeSettings", "Run", "final_accuracies", "landscape", "read_runs", "tightness"]
