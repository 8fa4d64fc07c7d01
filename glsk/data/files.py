"""Finding data files: a given path, the environment variable GLSK_DATA, then a checked download."""

import os
from collections.abc import Iterable
from pathlib import Path

from glsk.errors import DataError

VARIABLE = "GLSK_DATA"


def roots(data: str | os.PathLike[str] | None, folder: str, names: Iterable[str]) -> list[Path]:
    """Folders to look in for the set whose usual folder name is ``folder``, most specific first.

    Args:
        data: a folder, or one of the set's files, whose folder then is meant; None for ``GLSK_DATA``.
        folder: the set's usual folder name.
        names: what the set's files are called.

    Raises:
        DataError: if ``data`` is given, or ``GLSK_DATA`` is set, and there is nothing there, or a file of another name.
    """
    given = data if data is not None else os.environ.get(VARIABLE) or None
    if given is None:
        return []
    root = Path(given).expanduser()
    origin = "--data" if data is not None else f"the environment variable {VARIABLE}"
    try:
        exists = root.exists()
    except (OSError, ValueError) as error:  # a name too long, or with a NUL
        raise DataError(f"{root}: not a path (from {origin}: {error})") from error
    if not exists:
        raise DataError(f"{root}: no such file or folder (from {origin})")
    if not root.is_dir():
        names = list(names)
        if root.name not in names:
            raise DataError(f"{root}: not a file of {folder} ({', '.join(names)}); give the folder that holds them")
        return [root.parent]
    return [root / folder, root]


def find(folders: Iterable[Path], names: Iterable[str]) -> Path | None:
    """The first existing file among ``names`` in ``folders``."""
    names = list(names)
    for folder in folders:
        for name in names:
            if (folder / name).is_file():
                return folder / name
    return None


def download(urls: Iterable[str], name: str, sha256: str, advice: str) -> Path:
    """``name`` in pooch's cache for glsk, downloaded from the first of ``urls`` that serves the right bytes.

    Raises:
        DataError: naming the file, why no download worked, and ``advice``.
    """
    import pooch

    reasons = []
    for url in urls:
        try:
            path = pooch.retrieve(url, known_hash=f"sha256:{sha256}", fname=name, path=pooch.os_cache("glsk"))
        except Exception as error:  # whatever the transport raises, the next mirror may do
            reasons.append(f"{url}: {(str(error) or type(error).__name__).splitlines()[0]}")
        else:
            return Path(path)
    raise DataError(f"{name}: not found, and the download failed ({'; '.join(reasons)}); {advice}")
