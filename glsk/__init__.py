"""glsk, Gaussian Loss Smoothing Kernels: population-batched bounds of ReLU networks, for certified training by PGPE."""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from glsk import backends, lines, ops
from glsk.bounds import canonical_method, methods
from glsk.errors import (
    BackendUnavailableError,
    CheckpointError,
    DataError,
    GlskError,
    MissingPackageError,
    NumericalError,
    UnsupportedLayerError,
)
from glsk.layers import Normalize
from glsk.linear import LinearBounds
from glsk.loss import robust_cross_entropy
from glsk.module import BoundedModule
from glsk.specification import margins

if TYPE_CHECKING:
    from glsk import (
        analysis,
        attacks,
        bounds,
        data,
        estimators,
        formats,
        info,
        models,
        objectives,
        precision,
        training,
        verify,
    )

__version__ = "0.1.0"

__all__ = [
    "BackendUnavailableError",
    "BoundedModule",
    "CheckpointError",
    "DataError",
    "GlskError",
    "LinearBounds",
    "MissingPackageError",
    "Normalize",
    "NumericalError",
    "UnsupportedLayerError",
    "__version__",
    "analysis",
    "attacks",
    "backends",
    "bounds",
    "canonical_method",
    "data",
    "estimators",
    "formats",
    "info",
    "lines",
    "margins",
    "methods",
    "models",
    "objectives",
    "ops",
    "precision",
    "robust_cross_entropy",
    "training",
    "verify",
]

_LAZY = frozenset(__all__) - globals().keys()
"""Submodules that are imported when they are first asked for: some take a while, or need more than PyTorch."""


def __getattr__(name: str) -> ModuleType:
    if name in _LAZY:
        return importlib.import_module(f"glsk.{name}")
    raise AttributeError(f"module 'glsk' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
