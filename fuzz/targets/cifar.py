"""CIFAR-10: a batch, pickled or binary, in a folder; and whole archives, plain or packed."""

import gzip
import io
import pickle
import tarfile
from functools import cache

import numpy as np

from fuzz import dataset, scratch
from glsk import DataError
from glsk.data import load
from glsk.data.cifar_archive import BATCHES

_IMAGES = np.arange(3072, dtype=np.uint8)[None]
_BINARY = bytes([3]) + _IMAGES.tobytes()


def seeds() -> list[bytes]:
    """A batch in every form, and archives of them."""
    pickles = [
        pickle.dumps({b"data": _IMAGES, b"labels": labels, b"batch_label": b"x"}, protocol=protocol)
        for protocol in (2, 4)
        for labels in ([3], np.array([3]))
    ]
    old = b"\x80\x02}q\x01(U\x06labelsq\x02]q\x03K\x03aU\x04dataq\x04K\x00u."  # as Python 2 wrote, without an array
    batches = [bytes([0]) + raw for raw in (_BINARY, *pickles, old)]
    packed = gzip.compress(_archive("w"))
    return [*batches, bytes([1]) + _archive("w"), bytes([2]) + _archive("w"), bytes([1]) + packed]


def check(data: bytes) -> None:
    """DataError, or a whole set."""
    way, content = scratch.split(data, 3)
    if way == 0:
        given, blamed = _folder(), _folder() / "data_batch_1"
        blamed.write_bytes(content)
    else:
        given = blamed = scratch.folder() / "cifar-10-python.tar.gz"
        given.write_bytes(content if way == 1 else gzip.compress(content, 1))
    with scratch.refusing(DataError, naming=blamed):
        dataset.check(load("cifar10", given))


@cache
def _folder():
    """The other batches, each of one image."""
    path = scratch.folder() / "cifar"
    path.mkdir()
    for name in BATCHES:
        (path / name).write_bytes(_BINARY)
    return path


def _archive(mode: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        for name in BATCHES:
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            member.size = len(_BINARY)
            archive.addfile(member, io.BytesIO(_BINARY))
    return file.getvalue()
