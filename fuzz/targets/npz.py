"""``.npz`` archives: whole ones, and one array in an archive that is sound."""

import io
import zipfile

import numpy as np

from fuzz import dataset, scratch
from glsk import DataError
from glsk.data import load

_X = np.arange(4 * 5 * 6, dtype=np.uint8).reshape(4, 5, 6)
_Y = np.array([0, 1, 2, 3])
_KEYS = ("x", "y", "x_test", "y_test")


def seeds() -> list[bytes]:
    """Archives packed and not; arrays of several dtypes and orders."""
    rgb = np.repeat(_X[..., None], 3, axis=3)
    wholes = [_savez(np.savez, x=_X, y=_Y), _savez(np.savez_compressed, x=rgb / 255, y=_Y)]
    wholes.append(_savez(np.savez, x_train=_X, y_train=_Y, x_test=_X[:2], y_test=_Y[:2]))
    arrays = [_X, _X / np.float32(255), np.asfortranarray(_X), _X.astype(">f8") / 255, _X[:0], _X[0], _X.astype("U3")]
    parts = [bytes([1]) + _npy(array) for array in arrays]
    parts += [bytes([2]) + _npy(y) for y in (_Y, _Y.astype(np.uint8), _Y / 2, _Y == 1, _Y.astype("M8[s]"))]
    return [*(bytes([0]) + raw for raw in wholes), *parts, bytes([3]) + _npy(_X), bytes([4]) + _npy(_Y)]


def check(data: bytes) -> None:
    """DataError, or a whole set."""
    way, content = scratch.split(data, 5)
    path = scratch.folder() / "fuzz.npz"
    if way == 0:
        path.write_bytes(content)
    else:
        arrays = {"x": _npy(_X), "y": _npy(_Y)}
        if way > 2:
            arrays = {f"{name}_{part}": raw for part in ("train", "test") for name, raw in arrays.items()}
        arrays[_KEYS[way - 1]] = content
        with zipfile.ZipFile(path, "w") as archive:
            for key, raw in arrays.items():
                archive.writestr(f"{key}.npy", raw)
    with scratch.refusing(DataError, naming=path):
        dataset.check(load(str(path)))


def _savez(save: object, **arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    save(file, **arrays)
    return file.getvalue()


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()
