"""CIFAR-10 (Krizhevsky, 2009) from its Python or binary archive, packed or unpacked."""

import io
import os
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np

from glsk.arguments import printable
from glsk.data.cifar_archive import ARCHIVES, BATCHES, MAX_BATCH, PYTHON_SHA256, Reader, archive_reader
from glsk.data.dataset import Dataset, check_labels, images_to_tensor, labels_to_tensor
from glsk.data.files import VARIABLE, download, find, roots
from glsk.data.streams import read_bytes
from glsk.errors import DataError

# Per-channel statistics of the 50000 training images, as used throughout the field.
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)

_URLS = ("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",)
_ADVICE = (
    "put cifar-10-python.tar.gz or cifar-10-binary.tar.gz (https://www.cs.toronto.edu/~kriz/cifar.html), or what they "
    f"unpack to, into a folder and give it with --data or {VARIABLE}"
)


def load_cifar10(data: str | os.PathLike[str] | None = None) -> Dataset:
    """The 50000 + 10000 images of CIFAR-10.

    Args:
        data: the archive, or a folder that holds it or what it unpacks to (or has a subfolder ``cifar10`` that does);
            else ``GLSK_DATA``, else the archive is downloaded.

    Raises:
        DataError: naming the file that is missing or corrupt, and how to get it.
    """
    read = _reader(data)
    batches = [_batch(*read(name)) for name in BATCHES]
    x = [images for images, _ in batches]
    y = [labels for _, labels in batches]
    return Dataset(
        "cifar10",
        images_to_tensor(np.concatenate(x[:-1]), "CIFAR-10"),
        labels_to_tensor(np.concatenate(y[:-1]), sum(map(len, x[:-1])), "CIFAR-10"),
        images_to_tensor(x[-1], "CIFAR-10"),
        labels_to_tensor(y[-1], len(x[-1]), "CIFAR-10"),
        mean=MEAN,
        std=STD,
    )


def _reader(data: str | os.PathLike[str] | None) -> Reader:
    given = data if data is not None else os.environ.get(VARIABLE) or None
    if given is not None and Path(given).expanduser().is_file():
        return archive_reader(Path(given).expanduser(), _ADVICE)
    folders = roots(data, "cifar10", ARCHIVES)
    for folder in folders:
        for unpacked in (folder / "cifar-10-batches-py", folder / "cifar-10-batches-bin", folder):
            if find([unpacked], (BATCHES[-1], f"{BATCHES[-1]}.bin")) is not None:
                return _folder(unpacked)
    archive = find(folders, ARCHIVES)
    if archive is None:
        if folders:
            raise DataError(f"{ARCHIVES[0]}: not found in {' or '.join(map(str, folders))}; {_ADVICE}")
        archive = download(_URLS, ARCHIVES[0], PYTHON_SHA256, _ADVICE)
    return archive_reader(archive, _ADVICE)


def _folder(folder: Path) -> Reader:
    def read(name: str) -> tuple[bytes, str]:
        path = find([folder], (name, f"{name}.bin"))
        if path is None:
            raise DataError(f"{folder / name}[.bin]: not found; {_ADVICE}")
        return read_bytes(path, MAX_BATCH), str(path)

    return read


def _batch(raw: bytes, source: str) -> tuple[np.ndarray, np.ndarray]:
    """One batch as uint8 [N, 3, 32, 32] and labels [N]; a pickle starts with its PROTO opcode, 0x80."""
    images, labels = _pickled(raw, source) if raw[:1] == b"\x80" else _binary(raw, source)
    y = labels_to_tensor(labels, len(images), source)
    check_labels(y, 10, source)
    return images, labels


def _binary(raw: bytes, source: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows of one label byte and 3072 pixels."""
    if not raw or len(raw) % 3073:
        raise DataError(f"{source}: {len(raw)} bytes is not a whole number of rows of 3073; truncated or not CIFAR-10")
    rows = np.frombuffer(raw, dtype=np.uint8).reshape(-1, 3073)
    return rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0].astype(np.int64)


class _Unpickler(pickle.Unpickler):
    """Builds NumPy arrays and plain containers, and refuses every other global: a pickle could run any code."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return super().find_class("numpy._core.multiarray", name)
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no CIFAR-10 batch needs")


def _pickled(raw: bytes, source: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        _check_memo(raw)
        batch = _Unpickler(io.BytesIO(raw), encoding="bytes").load()
        images, labels = np.asarray(batch[b"data"]), np.asarray(batch[b"labels"])
        if images.dtype != np.uint8 or images.ndim != 2 or images.shape[1] != 3072:
            raise ValueError(f"data is {images.dtype} {list(images.shape)}, expected uint8 [N, 3072]")
        if max(images.nbytes, labels.nbytes // 8) > len(raw):  # an array built, but never filled
            raise ValueError(f"{images.nbytes} bytes of pixels in a file of {len(raw)}")
    except Exception as error:  # a damaged pickle raises nearly anything
        told = isinstance(error, ValueError | EOFError | pickle.UnpicklingError)
        reason = printable(error) if told else type(error).__name__
        raise DataError(f"{source}: truncated or corrupt, or not a CIFAR-10 batch ({reason})") from error
    return images.reshape(-1, 3, 32, 32), labels


def _check_memo(raw: bytes) -> None:
    """A pickle numbers its objects one by one; a far larger number would make the unpickler take that much memory."""
    for opcode, argument, _ in pickletools.genops(raw):
        if opcode.name == "LONG_BINPUT" and argument is not None and argument > len(raw):
            raise ValueError(f"object number {argument} in a pickle of {len(raw)} bytes")
