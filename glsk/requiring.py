"""What to say where a package that only some of glsk needs is not installed."""

from collections.abc import Iterator
from contextlib import contextmanager

from glsk.errors import MissingPackageError


@contextmanager
def requiring(package: str, extra: str, purpose: str) -> Iterator[None]:
    """An import of ``package`` in the block that fails says what it is for and how to install it.

    Raises:
        MissingPackageError: in place of the ModuleNotFoundError of that package.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise MissingPackageError(f"{purpose} needs {package}: pip install 'glsk[{extra}]'") from error
