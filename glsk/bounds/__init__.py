"""The relaxations, one a file: a chain, a population and a box in; lower and upper bounds out.

Every module of this package is imported, so a new relaxation is one new file.
"""

import importlib
import pkgutil

from glsk.bounds.constraints import Constraints
from glsk.bounds.output import hidden_bounds, in_one_op, output_bounds, wants_gradient
from glsk.bounds.query import Bounds, Query
from glsk.bounds.registry import (
    Relaxation,
    aliases,
    canonical_method,
    get,
    is_differentiable,
    is_linear,
    methods,
    relaxation,
)

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = [
    "Bounds",
    "Constraints",
    "Query",
    "Relaxation",
    "aliases",
    "canonical_method",
    "get",
    "hidden_bounds",
    "in_one_op",
    "is_differentiable",
    "is_linear",
    "methods",
    "output_bounds",
    "relaxation",
    "wants_gradient",
]
