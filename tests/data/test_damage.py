"""Damaged, hostile and implausible data files, made here, are each refused by name and in little memory."""

import gzip
import hashlib
import io
import struct
import tarfile
import zipfile

import numpy as np
import pytest

from glsk import DataError
from glsk.data import load, mnist, streams
from tests.data.test_cifar_reader import NAMES, files, pack
from tests.data.test_mnist_reader import STEMS, idx

RANDOM = np.random.RandomState(0)
X = RANDOM.randint(0, 256, (6, 9, 8)).astype(np.uint8)
Y = np.arange(6)


def cifar_contents():
    random = np.random.RandomState(0)
    return files({n: (random.randint(0, 256, (4, 3072)).astype(np.uint8), [3, 1, 4, 9]) for n in NAMES}, "binary")


def link(kind, name="cifar-10-batches-bin/data_batch_1.bin", size=0):
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, "/etc/passwd", size
    return member


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": np.array([0, 1, 2, 3, 4, 10**9])}, "label 1000000000"),
        ({"y": np.array([0, 1, 2, 3, 4, 1000])}, "label 1000"),
        ({"y": np.array([0, 1, 2, 3, 4, 2**64 - 1], np.uint64)}, "label 18446744073709551615"),
        ({"y": np.array([0, 1, 2, 3, 4, -1])}, "negative label"),
        ({"y": np.array([0, 1, 2, 3, 4, np.nan])}, "integers"),
        ({"y": np.zeros(6, bool)}, "integers"),
        ({"x": np.zeros((6, 0, 8))}, "no pixels"),
        ({"x": np.zeros((6, 9, 0), np.uint8)}, "no pixels"),
        ({"x": np.zeros((6, 0, 9, 8), np.uint8)}, "no pixels"),
        ({"x": np.full((6, 9, 8), np.inf)}, "must lie in"),
        ({"x": np.full((6, 9, 8), 1e300)}, "must lie in"),
        ({"x": np.full((6, 9, 8), -0.01)}, "must lie in"),
        ({"x": X.astype(float)}, "must lie in"),
        ({"x": X.astype(np.int16)}, "must be uint8"),
        ({"x": X.astype(complex)}, "must be uint8"),
        ({"x_train": X[:0], "y_train": Y[:0], "x_test": X, "y_test": Y}, "no training images"),
    ],
)
def test_npz_content(tmp_path, arrays, message):
    path = tmp_path / "bad.npz"
    np.savez(path, **({"x": X, "y": Y} | arrays))
    with pytest.raises(DataError, match=rf"bad\.npz.*{message}"):
        load(str(path))


@pytest.mark.parametrize("shape", [(1 << 30, 1, 1), (1 << 50, 9, 8), (1000, 1000, 1000)])
def test_an_npz_bomb_is_refused_by_its_header(tmp_path, shape):
    path = tmp_path / "bomb.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", header.getvalue() + bytes(1 << 20))
        archive.writestr("y.npy", b"")
    with pytest.raises(DataError, match=r"bomb\.npz:x: .*refused"):
        load(str(path))


@pytest.mark.parametrize("at", [0.3, 0.5, 0.9, "crc", "length"])
def test_a_flipped_bit_in_a_packed_archive(tmp_path, at):
    path = pack(tmp_path / "cifar-10-binary.tar.gz", cifar_contents())
    raw = bytearray(path.read_bytes())
    raw[{"crc": -8, "length": -4}[at] if isinstance(at, str) else int(at * len(raw))] ^= 16
    path.write_bytes(bytes(raw))
    with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz"):
        load("cifar10", path)


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (link(tarfile.SYMTYPE), "a link"),
        (link(tarfile.LNKTYPE), "a link"),
        (link(tarfile.CHRTYPE), "a device"),
        (link(tarfile.FIFOTYPE), "a device"),
        (link(tarfile.DIRTYPE), "no plain file"),
        (link(tarfile.REGTYPE, "/data_batch_1.bin"), "leaves"),
        (link(tarfile.REGTYPE, "a/../../data_batch_1.bin"), "leaves"),
        (link(tarfile.REGTYPE, size=1 << 40), "claims"),
    ],
)
def test_a_batch_that_is_no_plain_file(tmp_path, member, message):
    path = tmp_path / "cifar-10-binary.tar.gz"
    with gzip.open(path, "wb") as file:
        file.write(member.tobuf() + bytes(1024))
    with pytest.raises(DataError, match=rf"cifar-10-binary\.tar\.gz: .*data_batch_1\.bin.*{message}"):
        load("cifar10", path)


def test_a_gzip_bomb_stops_at_the_cap(tmp_path):
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(bytes(1 << 22)))
    with pytest.raises(DataError, match=r"bomb\.gz: unpacks to more than 1000 bytes"):
        streams.read_bytes(path, 1000)


@pytest.mark.parametrize("count", [0, 1 << 19, 2**32 - 1])
def test_an_idx_header_of_implausibly_many_samples(tmp_path, count):
    for stem in STEMS:
        (tmp_path / stem).write_bytes(idx(np.zeros((2, 28, 28) if "images" in stem else 2, np.uint8)))
    (tmp_path / STEMS[0]).write_bytes(bytes((0, 0, 8, 3)) + struct.pack(">3I", count, 28, 28))
    with pytest.raises(DataError, match=f"{STEMS[0]}: its header promises {count} samples"):
        load("mnist", tmp_path)


def test_a_file_of_the_official_size_must_be_the_official_one(tmp_path, monkeypatch):
    for stem in STEMS:
        (tmp_path / f"{stem}.gz").write_bytes(
            gzip.compress(idx(np.zeros((2, 28, 28) if "images" in stem else 2, np.uint8)))
        )
    path = tmp_path / f"{STEMS[0]}.gz"
    monkeypatch.setitem(mnist._SIZES, STEMS[0], path.stat().st_size)
    with pytest.raises(DataError, match=rf"{STEMS[0]}\.gz: corrupt.*SHA-256"):
        load("mnist", tmp_path)
    monkeypatch.setitem(mnist._SHA256, STEMS[0], hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(load("mnist", tmp_path).x_train) == 2
