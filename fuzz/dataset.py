"""What every reader of images promises of the set it returns."""

import torch

from glsk.data import Dataset


def check(found: Dataset) -> None:
    """Images in [0, 1] in float32, a label below K for each."""
    for x, y in ((found.x_train, found.y_train), (found.x_test, found.y_test)):
        assert x.dtype == torch.float32
        assert x.dim() == 4
        assert x.shape[1:] == found.x_test.shape[1:]
        assert bool(((x >= 0) & (x <= 1)).all())
        assert y.dtype == torch.int64
        assert y.shape == x.shape[:1]
        assert bool(((y >= 0) & (y < found.num_classes)).all())
    assert len(found.x_test) > 0
    assert found.x_test[0].numel() > 0
    for values in (found.mean, found.std):
        assert values is None or len(values) == found.x_test.shape[1]
