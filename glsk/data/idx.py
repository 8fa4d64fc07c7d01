"""The IDX format of the original MNIST files, gzipped or not."""

import math
import struct
from pathlib import Path

import numpy as np

from glsk.data.streams import unpacked
from glsk.errors import DataError

MAX_SAMPLES = 1 << 18
"""Of any set in MNIST's files: four times the 60000 of the largest."""

_UNSIGNED_BYTE = 0x08


def read_idx(path: Path, dimensions: int, sample: tuple[int, ...] = ()) -> np.ndarray:
    """An IDX array of unsigned bytes.

    Args:
        path: the file.
        dimensions: of the array.
        sample: the shape of one sample.

    Returns:
        uint8 [N, *sample], 1 <= N <= :data:`MAX_SAMPLES`.

    Raises:
        DataError: naming the file, if it is not IDX, has another shape, is damaged, or is longer or shorter than its
            header says. The shape is checked before anything of its size is read.
    """
    header = 4 + 4 * dimensions
    with unpacked(path, header + MAX_SAMPLES * math.prod(sample)) as file:
        start = file.read(header)
        if len(start) < header or start[:4] != bytes((0, 0, _UNSIGNED_BYTE, dimensions)):
            raise DataError(f"{path}: not an IDX file of unsigned bytes in {dimensions} dimensions")
        shape = struct.unpack(f">{dimensions}I", start[4:])
        if shape[1:] != sample:
            size, wanted = ("x".join(map(str, part)) or "1" for part in (shape[1:], sample))
            raise DataError(f"{path}: images of {size} pixels, MNIST has {wanted}")
        if not 1 <= shape[0] <= MAX_SAMPLES:
            raise DataError(f"{path}: its header promises {shape[0]} samples, expected 1 to {MAX_SAMPLES}")
        raw = file.read()  # to the end, where gzip has its checksum
    if len(raw) != math.prod(shape):
        raise DataError(
            f"{path}: holds {len(raw)} bytes of data, its header promises {math.prod(shape)}; "
            "it is truncated or corrupt, copy or download it again"
        )
    return np.frombuffer(raw, dtype=np.uint8).reshape(shape)
