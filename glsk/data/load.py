"""Named sets."""

import os
from pathlib import Path

from glsk.data.cifar import load_cifar10
from glsk.data.dataset import Dataset
from glsk.data.mnist import load_mnist
from glsk.data.mnist_5k import load_mnist_5k
from glsk.data.npz import load_npz

_READERS = {"mnist-5k": load_mnist_5k, "mnist": load_mnist, "cifar10": load_cifar10}

NAMES = tuple(_READERS)
"""The named sets. ``mnist-5k`` needs no download."""


def load(name: str = "mnist-5k", data: str | os.PathLike[str] | None = None) -> Dataset:
    """The set called ``name``.

    Args:
        name: "mnist-5k", "mnist", "cifar10", or the path of an ``.npz`` file.
        data: the folder that holds the files (see each reader), or an ``.npz`` file, which then is the set whatever
            ``name`` says. Default: the environment variable ``GLSK_DATA``, then a download.

    Raises:
        ValueError: unknown name.
        DataError: a file is missing, truncated or corrupt; the message names it and says how to get it.
    """
    if data is not None and str(data).endswith(".npz"):
        return load_npz(Path(data).expanduser())
    if name.endswith(".npz"):
        return load_npz(Path(name).expanduser())
    if name not in _READERS:
        raise ValueError(f"dataset: unknown {name!r}; known: {', '.join(NAMES)}, or the path of an .npz file")
    return _READERS[name](data)
