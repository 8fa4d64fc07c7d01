"""The IDX format of the original MNIST files, gzipped or not."""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from glsk.errors import DataError

_UNSIGNED_BYTE = 0x08


def read_bytes(path: Path) -> bytes:
    """The content of a file, decompressed if it is gzipped. Raises DataError naming it."""
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: truncated or corrupt gzip data ({error}); copy or download it again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """An IDX array of unsigned bytes.

    Raises:
        DataError: naming the file, if it is not IDX, has another number of dimensions, or is cut short.
    """
    raw = read_bytes(path)
    header = 4 + 4 * dimensions
    if len(raw) < header or raw[:4] != bytes((0, 0, _UNSIGNED_BYTE, dimensions)):
        raise DataError(f"{path}: not an IDX file of unsigned bytes in {dimensions} dimensions")
    shape = struct.unpack(f">{dimensions}I", raw[4:header])
    if len(raw) - header != math.prod(shape):
        raise DataError(
            f"{path}: holds {len(raw) - header} bytes of data, its header promises {math.prod(shape)}; "
            "it is truncated or corrupt, copy or download it again"
        )
    return np.frombuffer(raw, dtype=np.uint8, offset=header).reshape(shape)
