"""Any set in a NumPy ``.npz`` archive."""

import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from glsk.data.dataset import Dataset, check_labels, images_to_tensor, labels_to_tensor
from glsk.errors import DataError

_KEYS = "x_train, y_train, x_test and y_test, or x (or images) and y (or labels) for test images alone"


def load_npz(path: Path) -> Dataset:
    """Images and labels of an ``.npz``; pickled content is refused.

    Keys: ``x_train``, ``y_train``, ``x_test``, ``y_test``; or ``x``/``images`` and ``y``/``labels`` (test only). Images
    are uint8 or floats in [0, 1]; [N, H, W], [N, C, H, W] or [N, H, W, C]. A set of three channels gets its own
    per-channel mean and standard deviation.

    Raises:
        DataError: naming the file, if it is missing, corrupt, or lacks a key.
    """
    arrays = _read(path)
    if "x_test" in arrays:
        missing = [key for key in ("x_train", "y_train", "y_test") if key not in arrays]
        if missing:
            raise DataError(f"{path}: lacks {', '.join(missing)}; expected {_KEYS}")
        x_train, y_train = _pair(arrays["x_train"], arrays["y_train"], f"{path}:train")
        x_test, y_test = _pair(arrays["x_test"], arrays["y_test"], f"{path}:test")
    else:
        x, y = arrays.get("x", arrays.get("images")), arrays.get("y", arrays.get("labels"))
        if x is None or y is None:
            raise DataError(f"{path}: holds {', '.join(sorted(arrays)) or 'nothing'}; expected {_KEYS}")
        x_test, y_test = _pair(x, y, str(path))
        x_train, y_train = x_test[:0], y_test[:0]
    if x_train.shape[1:] != x_test.shape[1:]:
        raise DataError(f"{path}: train images {list(x_train.shape[1:])}, test images {list(x_test.shape[1:])}")
    if not len(x_test):
        raise DataError(f"{path}: no test images")
    num_classes = max(10, int(torch.cat([y_train, y_test]).max()) + 1)
    check_labels(y_test, num_classes, str(path))
    mean, std = _statistics(x_train if len(x_train) else x_test)
    return Dataset(path.stem, x_train, y_train, x_test, y_test, num_classes, mean, std)


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not hasattr(archive, "files"):
                raise DataError(f"{path}: a single array, not an .npz archive")
            return {key: archive[key] for key in archive.files}
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, TypeError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: truncated, corrupt or not an .npz archive ({error})") from error


def _pair(images: np.ndarray, labels: np.ndarray, source: str) -> tuple[Tensor, Tensor]:
    return images_to_tensor(images, source), labels_to_tensor(labels, len(images), source)


def _statistics(x: Tensor) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    if x.shape[1] == 1:
        return None, None
    std = x.std(dim=(0, 2, 3)).clamp(min=1e-3)
    return tuple(x.mean(dim=(0, 2, 3)).tolist()), tuple(std.tolist())
