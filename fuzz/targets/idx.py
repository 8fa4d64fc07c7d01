"""IDX files of images and of labels, plain or packed."""

import bz2
import gzip
import lzma
import struct

import numpy as np

from fuzz import scratch
from glsk import DataError
from glsk.data.idx import MAX_SAMPLES, read_idx

_PACKERS = (bytes, gzip.compress, bz2.compress, lambda data: lzma.compress(data, preset=0))
_SHAPES = ((28, 28), ())


def seeds() -> list[bytes]:
    """Two images or three labels, packed each way, by the reader's hand or by ours."""
    images = bytes((0, 0, 8, 3)) + struct.pack(">3I", 2, 28, 28) + bytes(range(196)) * 8
    labels = bytes((0, 0, 8, 1)) + struct.pack(">I", 3) + bytes((1, 2, 9))
    whole = [bytes([2 * way + kind]) + data for way in range(4) for kind, data in enumerate((images, labels))]
    return whole + [bytes([kind]) + pack(data) for kind, data in enumerate((images, labels)) for pack in _PACKERS[1:]]


def check(data: bytes) -> None:
    """DataError, or an array of whole samples."""
    way, content = scratch.split(data, 8)
    path = scratch.folder() / "fuzz-idx-ubyte"
    path.write_bytes(_PACKERS[way // 2](content))
    sample = _SHAPES[way % 2]
    with scratch.refusing(DataError, naming=path):
        found = read_idx(path, 1 + len(sample), sample)
        assert found.dtype == np.uint8
        assert found.shape[1:] == sample
        assert 1 <= len(found) <= MAX_SAMPLES
