import numpy as np
import pytest
import torch

from glsk import DataError
from glsk.data import load

X = np.random.RandomState(0).randint(0, 256, (6, 9, 8, 3)).astype(np.uint8)
Y = np.arange(6)


def save(path, **arrays):
    np.savez_compressed(path, **arrays)
    return path


def test_train_and_test(tmp_path):
    found = load("any", save(tmp_path / "set.npz", x_train=X, y_train=Y, x_test=X[:2], y_test=Y[:2]))
    assert found.name == "set"
    assert found.x_train.shape == (6, 3, 9, 8)
    np.testing.assert_allclose(found.x_train.permute(0, 2, 3, 1) * 255, X, rtol=1e-6)
    assert found.y_test.tolist() == [0, 1]
    np.testing.assert_allclose(found.mean, X.mean((0, 1, 2)) / 255, rtol=1e-5)


@pytest.mark.parametrize("keys", [("x", "y"), ("images", "labels")])
def test_test_images_alone(tmp_path, keys):
    found = load(str(save(tmp_path / "a.npz", **dict(zip(keys, (X, Y), strict=True)))))
    assert found.x_train.shape == (0, 3, 9, 8)
    assert found.x_test.shape == (6, 3, 9, 8)


@pytest.mark.parametrize("shape", [(5, 9, 8), (5, 1, 9, 8), (5, 9, 8, 1)])
def test_grey_images_of_floats(tmp_path, shape):
    x = np.random.RandomState(1).rand(*shape)
    found = load(str(save(tmp_path / "a.npz", x=x, y=Y[:5])))
    torch.testing.assert_close(found.x_test, torch.from_numpy(x).float().reshape(5, 1, 9, 8))
    assert found.mean is None


def test_number_of_classes_grows_with_the_labels(tmp_path):
    assert load(str(save(tmp_path / "a.npz", x=X, y=Y))).num_classes == 10
    assert load(str(save(tmp_path / "b.npz", x=X, y=Y + 20))).num_classes == 26


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X}, "holds x; expected"),
        ({"x_test": X, "y_test": Y}, "lacks x_train, y_train"),
        ({"x": X, "y": Y[:-1]}, "expected 6 labels"),
        ({"x": X, "y": Y - 1}, "negative label -1"),
        ({"x": X, "y": Y / 2}, "labels must be integers"),
        ({"x": X / 100.0, "y": Y}, r"must lie in \[0, 1\]"),
        ({"x": np.full((6, 9, 8), np.nan), "y": Y}, r"must lie in \[0, 1\]"),
        ({"x": X.astype(int), "y": Y}, "must be uint8"),
        ({"x": X[0, 0], "y": Y}, "images must be"),
        ({"x": X[:0], "y": Y[:0]}, "no test images"),
        ({"x": np.array([{"a": 1}], dtype=object), "y": Y}, "pickle"),
        ({"x_train": X[:, :5], "y_train": Y, "x_test": X, "y_test": Y}, "train images"),
    ],
)
def test_bad_content_names_the_file(tmp_path, arrays, message):
    path = save(tmp_path / "bad.npz", **arrays)
    with pytest.raises(DataError, match=rf"bad\.npz.*{message}"):
        load("any", path)


@pytest.mark.parametrize("keep", [0, 10, -1, -40, 200])
def test_a_truncated_file_is_named(tmp_path, keep):
    path = save(tmp_path / "cut.npz", x=X, y=Y)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"cut\.npz: truncated, corrupt or not"):
        load("any", path)


def test_a_flipped_bit_is_noticed(tmp_path):
    path = save(tmp_path / "flipped.npz", x=X, y=Y)
    raw = bytearray(path.read_bytes())
    raw[300] ^= 1
    path.write_bytes(bytes(raw))
    with pytest.raises(DataError, match=r"flipped\.npz"):
        load("any", path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.npz: no such file"):
        load("any", tmp_path / "none.npz")


def test_a_single_array_is_refused(tmp_path):
    path = tmp_path / "one.npz"
    with open(path, "wb") as file:
        np.save(file, X)
    with pytest.raises(DataError, match=r"one\.npz"):
        load("any", path)
