import gzip
import struct

import numpy as np
import pytest
import torch

from glsk import DataError
from glsk.data import load

STEMS = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx(array):
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def arrays():
    random = np.random.RandomState(0)
    sets = {}
    for stem in STEMS:
        count = 6 if "train" in stem else 4
        shape = (count, 28, 28) if "images" in stem else (count,)
        sets[stem] = random.randint(0, 256 if "images" in stem else 10, shape).astype(np.uint8)
    return sets


def write(folder, arrays, compressed):
    folder.mkdir(exist_ok=True, parents=True)
    for stem, array in arrays.items():
        if compressed:
            (folder / f"{stem}.gz").write_bytes(gzip.compress(idx(array)))
        else:
            (folder / stem).write_bytes(idx(array))


def check(found, arrays):
    assert found.x_train.shape == (6, 1, 28, 28)
    assert found.x_train.dtype == torch.float32
    assert found.y_train.dtype == torch.int64
    np.testing.assert_array_equal(found.x_train[:, 0] * 255, arrays[STEMS[0]])
    np.testing.assert_array_equal(found.y_train, arrays[STEMS[1]])
    np.testing.assert_array_equal(found.x_test[:, 0] * 255, arrays[STEMS[2]])
    np.testing.assert_array_equal(found.y_test, arrays[STEMS[3]])
    assert found.input_shape == (1, 28, 28)
    assert found.mean is None


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("folder", ["", "mnist"])
def test_reads_idx_files_given_by_path_or_by_environment(tmp_path, arrays, compressed, folder, monkeypatch):
    write(tmp_path / folder, arrays, compressed)
    check(load("mnist", tmp_path), arrays)
    monkeypatch.setenv("GLSK_DATA", str(tmp_path))
    check(load("mnist"), arrays)


def test_a_given_path_wins_over_the_environment(tmp_path, arrays, monkeypatch):
    write(tmp_path, arrays, True)
    monkeypatch.setenv("GLSK_DATA", str(tmp_path / "elsewhere"))
    check(load("mnist", tmp_path), arrays)


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("compressed", [True, False])
def test_truncated_file_is_named(tmp_path, arrays, stem, compressed):
    write(tmp_path, arrays, compressed)
    path = tmp_path / (f"{stem}.gz" if compressed else stem)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DataError, match=f"{path.name}.*again"):
        load("mnist", tmp_path)


def test_corrupt_gzip_is_named(tmp_path, arrays):
    write(tmp_path, arrays, True)
    path = tmp_path / f"{STEMS[0]}.gz"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    path.write_bytes(bytes(raw))
    with pytest.raises(DataError, match=path.name):
        load("mnist", tmp_path)


def test_a_file_that_is_not_idx_is_named(tmp_path, arrays):
    write(tmp_path, arrays, False)
    (tmp_path / STEMS[2]).write_bytes(b"<html>404</html>")
    with pytest.raises(DataError, match=f"{STEMS[2]}: not an IDX file"):
        load("mnist", tmp_path)


def test_labels_must_match_the_images_and_be_digits(tmp_path, arrays):
    write(tmp_path, {**arrays, STEMS[3]: arrays[STEMS[3]][:-1]}, False)
    with pytest.raises(DataError, match=f"{STEMS[3]}: expected 4 labels"):
        load("mnist", tmp_path)
    write(tmp_path, {**arrays, STEMS[3]: np.array([1, 2, 3, 10], np.uint8)}, False)
    with pytest.raises(DataError, match=f"{STEMS[3]}: label 10"):
        load("mnist", tmp_path)


def test_images_of_another_size_are_refused(tmp_path, arrays):
    write(tmp_path, {**arrays, STEMS[0]: np.zeros((6, 32, 32), np.uint8)}, False)
    with pytest.raises(DataError, match=f"{STEMS[0]}: images of 32x32"):
        load("mnist", tmp_path)


def test_missing_file_is_named_with_the_way_to_get_it(tmp_path, arrays):
    write(tmp_path, arrays, True)
    (tmp_path / f"{STEMS[1]}.gz").unlink()
    with pytest.raises(DataError, match=rf"{STEMS[1]}\[.gz\]: not found in .*--data or GLSK_DATA"):
        load("mnist", tmp_path)


def test_missing_folder_is_named(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"nowhere: no such file or folder .*--data"):
        load("mnist", tmp_path / "nowhere")
    monkeypatch.setenv("GLSK_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"nowhere: no such file or folder .*GLSK_DATA"):
        load("mnist")


def test_failed_downloads_name_the_file_and_every_mirror(monkeypatch):
    import pooch

    def offline(url, **_):
        raise OSError("no route to host\nsecond line")

    monkeypatch.delenv("GLSK_DATA", raising=False)
    monkeypatch.setattr(pooch, "retrieve", offline)
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz: not found.*no route to host") as caught:
        load("mnist")
    assert "s3.amazonaws.com" in str(caught.value)
    assert "storage.googleapis.com" in str(caught.value)
    assert "second line" not in str(caught.value)


def test_download_falls_back_to_the_second_mirror(tmp_path, arrays, monkeypatch):
    import pooch

    write(tmp_path, arrays, True)
    asked = []

    def second_only(url, known_hash, fname, path):
        asked.append(url)
        assert known_hash.startswith("sha256:")
        if "amazonaws" in url:
            raise OSError("down")
        return str(tmp_path / fname)

    monkeypatch.delenv("GLSK_DATA", raising=False)
    monkeypatch.setattr(pooch, "retrieve", second_only)
    check(load("mnist"), arrays)
    assert len(asked) == 8


def test_unknown_name():
    with pytest.raises(ValueError, match="unknown 'svhn'; known: mnist-5k, mnist, cifar10"):
        load("svhn")
