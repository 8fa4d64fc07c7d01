"""Image sets as tensors: MNIST, 5000 MNIST images that need no download, CIFAR-10, and any ``.npz``."""

from glsk.data.augment import augment
from glsk.data.dataset import Dataset
from glsk.data.load import NAMES, load

__all__ = ["NAMES", "Dataset", "augment", "load"]
