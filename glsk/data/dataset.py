"""What every reader returns."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from glsk.errors import DataError

MAX_CLASSES = 1000
"""Labels lie below this (ImageNet's number of classes). More are a mistake, and the margins of K classes take K^2."""


@dataclass(frozen=True, repr=False)
class Dataset:
    """Images in [0, 1] and their labels.

    Attributes:
        name: the set's name.
        x_train: float32 [N, C, H, W]; N = 0 for a set that only has test images.
        y_train: int64 [N].
        x_test: float32 [M, C, H, W].
        y_test: int64 [M].
        num_classes: K; every label is in [0, K).
        mean: per-channel mean for :class:`glsk.Normalize`, or None where the paper normalises nothing (MNIST).
        std: per-channel standard deviation, or None.
    """

    name: str
    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    num_classes: int = 10
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __repr__(self) -> str:
        counts = f"{len(self.x_train)} training and {len(self.x_test)} test images"
        return f"Dataset({self.name!r}: {counts} {list(self.input_shape)}, {self.num_classes} classes)"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(C, H, W) of one image."""
        return tuple(self.x_test.shape[1:])


def images_to_tensor(images: np.ndarray, source: str) -> Tensor:
    """uint8 images, or floats already in [0, 1], as float32 [N, C, H, W].

    Accepts [N, H, W] (one channel), [N, C, H, W] and [N, H, W, C] with C = 1 or 3.

    Raises:
        DataError: naming ``source``, if the shape or the range is anything else, or there is no image or no pixel.
    """
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[1] not in (1, 3) and images.shape[3] in (1, 3):
        images = images.transpose(0, 3, 1, 2)
    if images.ndim != 4:
        raise DataError(f"{source}: images must be [N, H, W], [N, C, H, W] or [N, H, W, C], got {list(images.shape)}")
    if not images.size:
        what = "no images" if not len(images) else f"images of no pixels, {list(images.shape[1:])}"
        raise DataError(f"{source}: {what}")
    if images.dtype == np.uint8:
        return torch.from_numpy(np.array(images, dtype=np.float32, order="C")).div_(255.0)
    if not np.issubdtype(images.dtype, np.floating):
        raise DataError(f"{source}: images must be uint8, or floats in [0, 1], got {images.dtype}")
    with np.errstate(over="ignore"):  # becomes infinite, and is refused
        x = torch.from_numpy(np.array(images, dtype=np.float32, order="C"))  # a copy: what was read is read-only
    if not bool(((x >= 0) & (x <= 1)).all()):  # NaN is not
        raise DataError(f"{source}: float images must lie in [0, 1], without NaN")
    return x


def labels_to_tensor(labels: np.ndarray, count: int, source: str) -> Tensor:
    """Integer labels in [0, :data:`MAX_CLASSES`) as int64 [count]. Raises DataError naming ``source``."""
    if labels.shape != (count,):
        raise DataError(f"{source}: expected {count} labels, one an image, got {list(labels.shape)}")
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{source}: labels must be integers, got {labels.dtype}")
    if labels.size and int(labels.min()) < 0:
        raise DataError(f"{source}: negative label {int(labels.min())}")
    if labels.size and int(labels.max()) >= MAX_CLASSES:  # before the cast, which would wrap
        raise DataError(f"{source}: label {int(labels.max())}; more than {MAX_CLASSES} classes are not plausible")
    return torch.from_numpy(labels.astype(np.int64))


def check_labels(y: Tensor, num_classes: int, source: str) -> None:
    """Raises DataError naming ``source`` if a label is not below ``num_classes``."""
    if y.numel() and int(y.max()) >= num_classes:
        raise DataError(f"{source}: label {int(y.max())}, expected 0 to {num_classes - 1}")
