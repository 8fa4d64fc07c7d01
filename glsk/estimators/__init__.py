"""Estimators of an objective's gradient, one a file: a plain or a smoothed gradient, followed by an optimiser.

Every module of this package is imported, so a new estimator is one new file; they import evotorch and Ray only when
one that needs them is built.
"""

import importlib
import inspect
import pkgutil

from glsk.estimators.base import Estimator, Job, State

_ESTIMATORS: dict[str, type[Estimator]] = {}

for _module in pkgutil.iter_modules(__path__):
    if not _module.ispkg:
        for _found in vars(importlib.import_module(f"{__name__}.{_module.name}")).values():
            if inspect.isclass(_found) and issubclass(_found, Estimator) and not inspect.isabstract(_found):
                _ESTIMATORS[_found.kind] = _found


def names() -> tuple[str, ...]:
    """The estimators' names."""
    return tuple(sorted(_ESTIMATORS))


def get(name: str) -> type[Estimator]:
    """The estimator of that name, in any case. Raises ValueError saying which there are."""
    if not isinstance(name, str) or name.lower() not in _ESTIMATORS:
        raise ValueError(f"estimator: unknown {name!r:.50}; known: {', '.join(names())}")
    return _ESTIMATORS[name.lower()]


__all__ = ["Estimator", "Job", "State", "get", "names"]
