"""Mini-batches in a random order that depends on the seed and the step alone."""

import torch
from torch import Tensor

from glsk.data.augment import augment
from glsk.seeds import stream
from glsk.transfer import to_device


class Batches:
    """Random access to the mini-batches of a training run.

    Every epoch goes through a fresh permutation; images that do not fill a batch are left out of that epoch, so that
    every loss is a mean over the same number of samples.

    Args:
        x: images [N, C, H, W].
        y: labels [N].
        batch_size: B; reduced to N if larger.
        seed: of the order and of the augmentation.
        augmented: flip and crop every batch (CIFAR-10, paper App. B.4).
        device: where batches are made; images and labels are kept there, so that a step copies nothing but its draws.

    Raises:
        ValueError: if there are no images.
    """

    def __init__(
        self, x: Tensor, y: Tensor, batch_size: int, seed: int, *, augmented: bool = False, device: str = "cpu"
    ) -> None:
        if not len(x):
            raise ValueError("there are no training images in this data set")
        self.x, self.y = x.to(device), y.to(device)
        self.batch_size = min(batch_size, len(x))
        self.steps_per_epoch = len(x) // self.batch_size
        self.seed, self.augmented, self.device = seed, augmented, device
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.int64)

    def epoch(self, step: int) -> int:
        """The 0-based epoch of ``step``."""
        return step // self.steps_per_epoch

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Images [B, C, H, W] and labels [B] of ``step`` (0-based, counted over all epochs)."""
        epoch, index = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch = epoch
            order = torch.randperm(len(self.x), generator=stream(self.seed, "order", epoch))
            self._order = to_device(order, self.device)
        rows = self._order[index * self.batch_size : (index + 1) * self.batch_size]
        x, y = self.x.index_select(0, rows), self.y.index_select(0, rows)
        if self.augmented:
            x = augment(x, stream(self.seed, "augment", step))
        return x, y
