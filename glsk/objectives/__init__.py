"""Training objectives, one a file: adversarial, robust by any relaxation, and what lies between.

Every module of this package is imported, so a new objective is one new file.
"""

import importlib
import pkgutil

from glsk.objectives.base import MiniBatch, NoSettings, Objective, Span, check_data
from glsk.objectives.registry import canonical, create, is_differentiable, names, objective, settings_type

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = [
    "MiniBatch",
    "NoSettings",
    "Objective",
    "Span",
    "canonical",
    "check_data",
    "create",
    "is_differentiable",
    "names",
    "objective",
    "settings_type",
]
