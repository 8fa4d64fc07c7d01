"""The archives of CIFAR-10, read into memory batch by batch; nothing is ever unpacked to disk."""

import tarfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from glsk.arguments import printable
from glsk.data.streams import check_official, unpacked
from glsk.errors import DataError

ARCHIVES = ("cifar-10-python.tar.gz", "cifar-10-binary.tar.gz")
BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
PYTHON_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
MAX_BATCH = 1 << 25
"""Bytes of one batch; the largest official one has 31035999."""

_OFFICIAL = {
    170498071: PYTHON_SHA256,
    170052171: "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
}
_MAX_CONTENT = 1 << 28  # bytes of the whole archive unpacked; the official ones have 186 million
_MAX_MEMBERS = 1000

Reader = Callable[[str], tuple[bytes, str]]
"""Batch name -> content and the name to blame."""


def archive_reader(path: Path, advice: str) -> Reader:
    """Reads a whole archive once, to the end, where the checksum of its compression is.

    Args:
        path: a tar, packed by gzip, bzip2, xz or not at all. One of an official archive's size must be that archive, by
            its SHA-256; for any other, the checksum of the compression is all there is to go by.
        advice: what to do where a batch is missing.

    Raises:
        DataError: naming the file: it is damaged, unpacks to implausibly much, or a batch in it is a link, a device, an
            absolute path or there twice.
    """
    check_official(path, _OFFICIAL)
    contents: dict[str, bytes] = {}
    try:
        with unpacked(path, _MAX_CONTENT) as file:
            with tarfile.open(fileobj=file, mode="r|") as archive:
                for count, member in enumerate(archive):
                    if count > _MAX_MEMBERS:
                        raise DataError(f"{path}: more than {_MAX_MEMBERS} members, CIFAR-10 has eight files; refused")
                    name = PurePosixPath(member.name).name.removesuffix(".bin")
                    if name in BATCHES:
                        _check(member, path, name in contents)
                        content = archive.extractfile(member)
                        assert content is not None
                        contents[name] = content.read()
            while file.read(1 << 20):
                pass
    except (tarfile.TarError, EOFError, OverflowError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path}: truncated or corrupt archive ({printable(error)}); copy or download it again"
        ) from error

    def read(name: str) -> tuple[bytes, str]:
        if name not in contents:
            raise DataError(f"{path}: holds no {name}; {advice}")
        return contents[name], f"{path}:{name}"

    return read


def _check(member: tarfile.TarInfo, path: Path, again: bool) -> None:
    name = PurePosixPath(member.name)
    if not member.isreg() or member.issparse():
        kind = "a link" if member.issym() or member.islnk() else "a device" if member.isdev() else "no plain file"
        raise DataError(f"{path}: {printable(member.name)} is {kind}, which no CIFAR-10 archive holds; refused")
    if name.is_absolute() or ".." in name.parts:
        raise DataError(
            f"{path}: {printable(member.name)} leaves the archive's folder, as in no CIFAR-10 archive; refused"
        )
    if member.size > MAX_BATCH:
        raise DataError(f"{path}: {printable(member.name)} claims {member.size} bytes, more than {MAX_BATCH}; refused")
    if again:
        raise DataError(f"{path}: holds {name.name} twice; refused")
