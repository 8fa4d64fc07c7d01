"""Content that a reader's own libraries trip over is refused by name, in one line, and good content without a word."""

import io
import pickle
import warnings
import zipfile

import numpy as np
import pytest

from glsk import DataError
from glsk.data import load
from tests.data.test_cifar_reader import NAMES, binary

X, Y = np.zeros((2, 4, 4), np.uint8), np.array([0, 1])


def npz(path, header):
    """An archive whose images have this text for a header."""
    labels = io.BytesIO()
    np.save(labels, Y)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + X.tobytes())
        archive.writestr("y.npy", labels.getvalue())
    return str(path)


@pytest.mark.parametrize(
    "header",
    [b"{'descr': \0", b"(" * 9000, b"{'descr': '|u1'", b"  x\n y", b"'" * 3, b"-" * 9000 + b"1", b"\xff{", b"{{}: 1}"],
)
def test_a_header_that_is_no_header(tmp_path, header):
    with pytest.raises(DataError, match=r"bad\.npz: truncated, corrupt or not an \.npz archive") as error:
        load(npz(tmp_path / "bad.npz", header))
    assert len(str(error.value).splitlines()) == 1


def test_a_key_of_several_lines_is_told_in_one(tmp_path):
    path = tmp_path / "keys.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a\nb" + "c" * 1000, b"")
    with pytest.raises(DataError, match=r"keys\.npz: holds a\\nbccc") as error:
        load(str(path))
    assert len(str(error.value).splitlines()) == 1
    assert len(str(error.value)) < 600


def test_float_images_load_without_a_warning(tmp_path):
    path = tmp_path / "float.npz"
    np.savez(path, x=X.astype(np.float32), y=Y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load(str(path)).x_test.shape == (2, 1, 4, 4)


@pytest.mark.parametrize(
    "raw", [b"\x80\x02K\x03K\x04a.", b"\x80\x02cos\nget\nline\n.", pickle.dumps({1: 2}), b"\x80\x02\xff."]
)
def test_a_pickle_that_builds_no_batch(tmp_path, raw):
    for name in NAMES:
        (tmp_path / name).write_bytes(binary(np.zeros((1, 3072), np.uint8), [3]))
    (tmp_path / NAMES[0]).write_bytes(raw)
    with pytest.raises(DataError, match=f"{NAMES[0]}: truncated or corrupt, or not a CIFAR-10 batch") as error:
        load("cifar10", tmp_path)
    assert len(str(error.value).splitlines()) == 1
    assert "object has no attribute" not in str(error.value)
