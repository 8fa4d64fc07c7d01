import io
import os
import pickle
import tarfile

import numpy as np
import pytest
import torch

from glsk import DataError
from glsk.data import load

NAMES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]


@pytest.fixture
def batches():
    random = np.random.RandomState(0)
    return {name: (random.randint(0, 256, (4, 3072)).astype(np.uint8), [3, 1, 4, 9]) for name in NAMES}


def pickled(images, labels):
    """As Python 2 wrote the original: str keys, which Python 3 reads as bytes."""
    return pickle.dumps({b"data": images, b"labels": labels, b"batch_label": b"x"}, protocol=2)


def binary(images, labels):
    return b"".join(bytes([label]) + row.tobytes() for row, label in zip(images, labels, strict=True))


def files(batches, kind):
    if kind == "python":
        return {f"cifar-10-batches-py/{name}": pickled(*batch) for name, batch in batches.items()}
    return {f"cifar-10-batches-bin/{name}.bin": binary(*batch) for name, batch in batches.items()}


def unpack(folder, contents):
    for name, content in contents.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_bytes(content)


def pack(path, contents):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def check(found, batches):
    assert found.x_train.shape == (20, 3, 32, 32)
    assert found.x_test.shape == (4, 3, 32, 32)
    expected = np.concatenate([batches[name][0] for name in NAMES[:5]]).reshape(-1, 3, 32, 32)
    np.testing.assert_array_equal(found.x_train * 255, expected)
    assert found.y_test.tolist() == [3, 1, 4, 9]
    assert found.x_train.dtype == torch.float32
    assert found.y_train.dtype == torch.int64
    assert len(found.mean) == len(found.std) == 3


@pytest.mark.parametrize("kind", ["python", "binary"])
@pytest.mark.parametrize("packed", [True, False])
def test_reads_every_form_of_the_archive(tmp_path, batches, kind, packed, monkeypatch):
    contents = files(batches, kind)
    if packed:
        path = pack(tmp_path / f"cifar-10-{kind}.tar.gz", contents)
        check(load("cifar10", path), batches)
    else:
        unpack(tmp_path, contents)
        check(load("cifar10", tmp_path / next(iter(contents)).split("/")[0]), batches)
    check(load("cifar10", tmp_path), batches)
    monkeypatch.setenv("GLSK_DATA", str(tmp_path))
    check(load("cifar10"), batches)


def test_a_pickle_that_asks_for_code_is_refused(tmp_path, batches):
    class Malicious:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "run by the pickle"),)

    contents = files(batches, "python")
    contents["cifar-10-batches-py/data_batch_3"] = pickle.dumps(Malicious(), protocol=2)
    unpack(tmp_path, contents)
    with pytest.raises(DataError, match=r"data_batch_3: .*mkdir"):
        load("cifar10", tmp_path)
    assert not (tmp_path / "run by the pickle").exists()


@pytest.mark.parametrize("kind", ["python", "binary"])
def test_a_truncated_batch_is_named(tmp_path, batches, kind):
    contents = files(batches, kind)
    name = next(name for name in contents if "data_batch_4" in name)
    unpack(tmp_path, {**contents, name: contents[name][:-5]})
    with pytest.raises(DataError, match=r"data_batch_4.*truncated"):
        load("cifar10", tmp_path)


def test_a_truncated_archive_is_named(tmp_path, batches):
    path = pack(tmp_path / "cifar-10-python.tar.gz", files(batches, "python"))
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match=r"cifar-10-python\.tar\.gz: truncated or corrupt"):
        load("cifar10", path)


@pytest.mark.parametrize("packed", [True, False])
def test_a_missing_batch_is_named(tmp_path, batches, packed):
    contents = files(batches, "binary")
    del contents["cifar-10-batches-bin/data_batch_2.bin"]
    if packed:
        pack(tmp_path / "cifar-10-binary.tar.gz", contents)
    else:
        unpack(tmp_path, contents)
    with pytest.raises(DataError, match=r"data_batch_2.*--data or GLSK_DATA"):
        load("cifar10", tmp_path)


def test_a_bad_label_is_named(tmp_path, batches):
    images, _ = batches["test_batch"]
    unpack(tmp_path, files({**batches, "test_batch": (images, [0, 1, 2, 200])}, "binary"))
    with pytest.raises(DataError, match=r"test_batch\.bin: label 200"):
        load("cifar10", tmp_path)


def test_an_empty_folder_says_what_to_put_there(tmp_path):
    with pytest.raises(DataError, match=r"cifar-10-python\.tar\.gz: not found in .*kriz/cifar"):
        load("cifar10", tmp_path)
