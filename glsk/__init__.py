"""glsk, Gaussian Loss Smoothing Kernels: population-batched bounds of ReLU networks, for certified training by PGPE."""

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
    "backends",
    "canonical_method",
    "lines",
    "margins",
    "methods",
    "ops",
    "robust_cross_entropy",
]
