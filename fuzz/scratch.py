"""The folder that a file target writes what it is given to, and what its reader may say."""

import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

MAX_INPUT = 1 << 16
"""Bytes of one input."""


@cache
def folder() -> Path:
    """One a process, in memory where there is such a file system; removed with the process."""
    shared = Path("/dev/shm")
    base = shared if os.access(shared, os.W_OK) else None
    holder = tempfile.TemporaryDirectory(prefix="glsk-fuzz-", dir=base)
    _KEPT.append(holder)
    return Path(holder.name)


_KEPT: list[object] = []


@contextmanager
def refusing(*errors: type[Exception], naming: Path) -> Iterator[None]:
    """Passes over the documented errors, if they name the file in one line; all else is a finding, a warning too."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
    except errors as error:
        text = str(error)
        if type(error) not in errors:
            raise
        assert str(naming) in text, f"does not name {naming.name}: {text!r:.300}"
        assert len(text.splitlines()) == 1, f"not one line: {text!r:.300}"
        assert "object has no attribute" not in text, f"speaks of Python: {text!r:.300}"


def split(data: bytes, ways: int) -> tuple[int, bytes]:
    """The first byte picks one of some ways to use the rest."""
    return (data[0] % ways if data else 0), data[1:]
