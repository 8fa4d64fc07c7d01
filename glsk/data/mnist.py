"""The full MNIST from its four IDX files (LeCun et al., 2010). The paper preprocesses nothing (App. B.4)."""

import os
from pathlib import Path

from torch import Tensor

from glsk.data.dataset import Dataset, check_labels, images_to_tensor, labels_to_tensor
from glsk.data.files import VARIABLE, download, find, roots
from glsk.data.idx import read_idx
from glsk.data.streams import check_official
from glsk.errors import DataError

_MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")
_SHA256 = {
    "train-images-idx3-ubyte": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
# Of the gzipped files. Other sets in the same format (Fashion-MNIST, KMNIST) share MNIST's sizes only once unpacked.
_SIZES = {
    "train-images-idx3-ubyte": 9912422,
    "train-labels-idx1-ubyte": 28881,
    "t10k-images-idx3-ubyte": 1648877,
    "t10k-labels-idx1-ubyte": 4542,
}
_ADVICE = (
    f"put the four files of MNIST ({', '.join(f'{stem}[.gz]' for stem in _SHA256)}) into one folder and give it with "
    f"--data or {VARIABLE}"
)


def load_mnist(data: str | os.PathLike[str] | None = None) -> Dataset:
    """The 60000 + 10000 images of MNIST.

    Args:
        data: a folder that holds the files, or has a subfolder ``mnist`` that does; else ``GLSK_DATA``, else they are
            downloaded.

    Raises:
        DataError: naming the file that is missing or corrupt, and how to get it.
    """
    folders = roots(data, "mnist", [name for stem in _SHA256 for name in _names(stem)])
    paths = {stem: _locate(stem, folders) for stem in _SHA256}
    x_train, y_train = _read(paths["train-images-idx3-ubyte"], paths["train-labels-idx1-ubyte"])
    x_test, y_test = _read(paths["t10k-images-idx3-ubyte"], paths["t10k-labels-idx1-ubyte"])
    return Dataset("mnist", x_train, y_train, x_test, y_test)


def _names(stem: str) -> tuple[str, ...]:
    dotted = stem.replace("-idx", ".idx")
    return stem, f"{stem}.gz", dotted, f"{dotted}.gz"


def _locate(stem: str, folders: list[Path]) -> Path:
    found = find(folders, _names(stem))
    if found is not None:
        check_official(found, {_SIZES[stem]: _SHA256[stem]})
        return found
    if folders:
        raise DataError(f"{stem}[.gz]: not found in {' or '.join(map(str, folders))}; {_ADVICE}")
    return download((f"{mirror}{stem}.gz" for mirror in _MIRRORS), f"{stem}.gz", _SHA256[stem], _ADVICE)


def _read(images_path: Path, labels_path: Path) -> tuple[Tensor, Tensor]:
    images = read_idx(images_path, 3, (28, 28))
    y = labels_to_tensor(read_idx(labels_path, 1), len(images), str(labels_path))
    check_labels(y, 10, str(labels_path))
    return images_to_tensor(images, str(images_path)), y
