"""Linear specifications of the logits."""

import torch
from torch import Tensor


def margins(y: Tensor, num_classes: int = 10, *, check_labels: bool = True) -> Tensor:
    """The margins f_y - f_j for all j != y, j ascending, as a specification matrix.

    Args:
        y: labels [B], an integer dtype, each in [0, num_classes).
        num_classes: K, at least 2.
        check_labels: check that every label is in range (on a GPU this waits for the device).

    Returns:
        C [B, K-1, K], the default floating dtype, on y's device.

    Raises:
        TypeError: if y is not an integer tensor.
        ValueError: if y is not one-dimensional, is empty, or a label is out of range.
    """
    if not isinstance(y, Tensor) or y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise TypeError(f"y: expected an integer tensor, got {getattr(y, 'dtype', type(y).__name__)}")
    if num_classes < 2:
        raise ValueError(f"num_classes: expected at least 2, got {num_classes}")
    if y.dim() != 1 or y.numel() == 0:
        raise ValueError(f"y: expected [B] with B >= 1, got {list(y.shape)}")
    if check_labels and (y.min() < 0 or y.max() >= num_classes):
        raise ValueError(f"y: labels must lie in [0, {num_classes}), got {int(y.min())} to {int(y.max())}")
    y = y.long()
    eye = torch.eye(num_classes, device=y.device)
    rows = torch.arange(num_classes - 1, device=y.device)
    others = rows + (rows >= y[:, None])  # j ascending, with j = y left out
    return eye[y][:, None, :] - eye[others]
