"""Packages that only some of glsk needs, and what to say where one is not installed."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from glsk.errors import MissingPackageError

EXTRAS = {
    "typer": "cli",
    "rich": "cli",
    "safetensors": "cli",
    "evotorch": "train",
    "pooch": "train",
    "ray": "train",
    "tensorboard": "train",
    "mlxtend": "demo",
    "onnx": "verify",
    "scipy": "verify",
    "matplotlib": "plot",
    "triton": "triton",
}
"""Package, by the name that is imported -> the extra of glsk that brings it."""


def advice(error: ImportError) -> str | None:
    """How to install what an import did not find; None if that is none of :data:`EXTRAS`."""
    package = (error.name or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or package not in EXTRAS:
        return None
    return _how(package)


def check_installed(package: str, purpose: str) -> None:
    """Before any work, of a package that is imported only where it is needed. Raises MissingPackageError."""
    if find_spec(package) is None:
        raise MissingPackageError(f"{purpose}: {_how(package)}")


def _how(package: str) -> str:
    return f"the package {package} is not installed: pip install 'glsk[{EXTRAS[package]}]'"


@contextmanager
def requiring(purpose: str) -> Iterator[None]:
    """An import in the block that finds a package of :data:`EXTRAS` missing says what for, and how to install it.

    Raises:
        MissingPackageError: in place of that ModuleNotFoundError.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (how := advice(error)) is None:
            raise
        raise MissingPackageError(f"{purpose}: {how}") from error
