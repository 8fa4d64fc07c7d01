"""Exceptions of glsk; each is also the built-in exception a caller would expect."""


class GlskError(Exception):
    """Base of every exception that glsk defines."""


class UnsupportedLayerError(GlskError, ValueError):
    """A module holds a layer, or an arrangement of layers, that glsk cannot bound."""


class BackendUnavailableError(GlskError, RuntimeError):
    """The requested backend cannot run here; the message says why and what to do."""


class MissingPackageError(GlskError, ImportError):
    """A package that this part of glsk needs is not installed; the message says which extra brings it."""


class NumericalError(GlskError, ArithmeticError):
    """A bound is NaN: the weights or the box overflow the dtype."""


class DataError(GlskError, ValueError):
    """A data file is missing, truncated or corrupt; the message names it."""


class CheckpointError(GlskError, ValueError):
    """A checkpoint is missing, corrupt, or belongs to another run."""
