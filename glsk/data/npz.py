"""Any set in a NumPy ``.npz`` archive."""

import math
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from glsk.arguments import printable
from glsk.data.dataset import Dataset, images_to_tensor, labels_to_tensor
from glsk.errors import DataError

MAX_ELEMENTS = 1 << 30
"""Numbers that one array may hold: images of 4 GiB in float32, twenty times CIFAR-10."""
MAX_RATIO = 200
"""What an array of more than :data:`_SMALL` bytes may unpack to, in times its packed size; MNIST's is about 10."""

_SMALL = 1 << 24
_KEYS = "x_train, y_train, x_test and y_test, or x (or images) and y (or labels) for test images alone"
_NAMES = ("x_train", "y_train", "x_test", "y_test", "x", "images", "y", "labels")


def load_npz(path: Path) -> Dataset:
    """Images and labels of an ``.npz``; pickled content is refused.

    Keys: ``x_train``, ``y_train``, ``x_test``, ``y_test``; or ``x``/``images`` and ``y``/``labels`` (test only); others
    are not read. Images are uint8 or floats in [0, 1]; [N, H, W], [N, C, H, W] or [N, H, W, C]. A set of three channels
    gets its own per-channel mean and standard deviation.

    Raises:
        DataError: naming the file, if it is missing, corrupt, lacks a key, or an array is implausibly large (see
            :data:`MAX_ELEMENTS` and :data:`MAX_RATIO`), which its header tells before any memory is taken.
    """
    arrays, keys = _read(path)
    if "x_test" in arrays:
        missing = [key for key in ("x_train", "y_train", "y_test") if key not in arrays]
        if missing:
            raise DataError(f"{path}: lacks {', '.join(missing)}; expected {_KEYS}")
        x_train, y_train = _pair(arrays["x_train"], arrays["y_train"], f"{path}:train", "training")
        x_test, y_test = _pair(arrays["x_test"], arrays["y_test"], f"{path}:test")
    else:
        x, y = arrays.get("x", arrays.get("images")), arrays.get("y", arrays.get("labels"))
        if x is None or y is None:
            raise DataError(f"{path}: holds {printable(', '.join(sorted(keys)) or 'nothing')}; expected {_KEYS}")
        x_test, y_test = _pair(x, y, str(path))
        x_train, y_train = x_test[:0], y_test[:0]
    if x_train.shape[1:] != x_test.shape[1:]:
        raise DataError(f"{path}: train images {list(x_train.shape[1:])}, test images {list(x_test.shape[1:])}")
    num_classes = max(10, int(torch.cat([y_train, y_test]).max()) + 1)
    mean, std = _statistics(x_train if len(x_train) else x_test)
    return Dataset(path.stem, x_train, y_train, x_test, y_test, num_classes, mean, std)


def _read(path: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays that may be wanted, and all keys."""
    if path.is_dir():
        raise DataError(f"{path}: a folder, not an .npz archive")
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            arrays = {key: _array(archive, members[key], f"{path}:{key}") for key in _NAMES if key in members}
            return arrays, list(members)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except PermissionError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except DataError:
        raise
    # What zipfile and the parser of NumPy's headers raise on damage; RuntimeError is an encrypted member.
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, TypeError, KeyError, RuntimeError) as error:
        raise DataError(f"{path}: truncated, corrupt or not an .npz archive ({printable(error)})") from error


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo, source: str) -> np.ndarray:
    """One array; its shape is checked against the archive's sizes first."""
    with archive.open(info) as file:
        shape, fortran, dtype = _header(file)
        if dtype.hasobject:
            raise DataError(f"{source}: holds a pickle, which could run any code; save plain arrays")
        count, size = math.prod(shape), math.prod(shape) * dtype.itemsize
        if count > MAX_ELEMENTS:
            raise DataError(f"{source}: shape {list(shape)} is more than {MAX_ELEMENTS} numbers, refused")
        if size > max(_SMALL, MAX_RATIO * info.compress_size):
            raise DataError(
                f"{source}: {info.compress_size} bytes claim to unpack to {size}, more than {MAX_RATIO} times as many; "
                "refused (save it uncompressed if that is right)"
            )
        raw = file.read(size)
        if len(raw) != size or file.read(1):  # reading on to the end checks the CRC
            raise DataError(f"{source}: truncated or corrupt: its length is not that of {dtype} {list(shape)}")
    return np.frombuffer(raw, dtype).reshape(shape, order="F" if fortran else "C")


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """(shape, whether in Fortran's order, dtype) of a .npy stream."""
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"unknown version {version} of the .npy format")
    try:
        return readers[version](file)
    except Exception as error:  # NumPy parses it as Python: errors of the tokenizer, the parser and the evaluation
        raise ValueError(f"the header of an array cannot be read: {type(error).__name__}") from error


def _pair(images: np.ndarray, labels: np.ndarray, source: str, part: str = "test") -> tuple[Tensor, Tensor]:
    if images.ndim and not len(images):
        raise DataError(f"{source}: no {part} images")
    return images_to_tensor(images, source), labels_to_tensor(labels, len(images), source)


def _statistics(x: Tensor) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    if x.shape[1] == 1:
        return None, None
    std = x.std(dim=(0, 2, 3)).clamp(min=1e-3)
    return tuple(x.mean(dim=(0, 2, 3)).tolist()), tuple(std.tolist())
