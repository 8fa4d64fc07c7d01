"""Compressed files read to their checked end, and never further than is plausible."""

import bz2
import gzip
import hashlib
import io
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from glsk.errors import DataError

_OPENERS: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": lambda path: gzip.open(path, "rb"),  # noqa: SIM115 - opened and closed by unpacked()
    b"BZh": lambda path: bz2.open(path, "rb"),  # noqa: SIM115
    b"\xfd7zXZ": lambda path: lzma.open(path, "rb"),  # noqa: SIM115
}
_CHUNK = 1 << 20

Digests = Mapping[int, str]
"""Size of an official file in bytes -> its SHA-256."""


class Capped(io.RawIOBase):
    """A stream that counts what was read and refuses to give more than ``limit`` bytes.

    Raises:
        DataError: naming the file, as soon as there is more.
    """

    def __init__(self, file: IO[bytes], limit: int, path: Path) -> None:
        self._file, self._limit, self._path, self._read = file, limit, path, 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """Up to ``size`` bytes; without it, all up to the checked end."""
        if size is None or size < 0:
            return b"".join(iter(lambda: self.read(_CHUNK), b""))
        # One byte more than is allowed shows that there is more; a huge ``size`` allocates nothing.
        found = self._file.read(min(size, self._limit - self._read + 1))
        self._read += len(found)
        if self._read > self._limit:
            raise DataError(f"{self._path}: unpacks to more than {self._limit} bytes, which no such data set has")
        return found


@contextmanager
def unpacked(path: Path, limit: int) -> Iterator[Capped]:
    """The content of a file, decompressed if it is a gzip, bzip2 or xz file; the checksums are tested at its end.

    Args:
        path: the file.
        limit: bytes of content there may be at most.

    Raises:
        DataError: naming the file: it cannot be read, is damaged, or holds more than ``limit`` bytes.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(6)
        opener = next((opener for magic, opener in _OPENERS.items() if start.startswith(magic)), None)
        with opener(path) if opener is not None else open(path, "rb") as content:
            yield Capped(content, limit, path)
    except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error) as error:
        raise DataError(f"{path}: truncated or corrupt compressed data ({error}); copy or download it again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error


def read_bytes(path: Path, limit: int) -> bytes:
    """All the content of a file, as :func:`unpacked` gives it."""
    with unpacked(path, limit) as file:
        return file.read()


def check_official(path: Path, known: Digests) -> None:
    """If a file has the size of the official one, it must be the official one.

    A file of another size (a copy packed anew, another set in the same format) has no known digest: there the
    checksums of its own format are all there is.

    Raises:
        DataError: naming the file, if a bit of it is not what it should be.
    """
    try:
        expected = known.get(path.stat().st_size)
        if expected is None:
            return
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    if found != expected:
        raise DataError(f"{path}: corrupt: it has the official file's size but not its SHA-256; download it again")
