"""Linear specifications of the logits."""

import torch
from torch import Tensor

from glsk.arguments import FLOATS, all_finite, flag, whole_number, with_values
from glsk.network import Chain

_SIGNED = (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8)
_LABELS = (*_SIGNED, torch.uint16, torch.uint32, torch.uint64)
_ROWS = (*FLOATS, torch.float16, torch.bfloat16, *_SIGNED)


def resolve(chain: Chain, C: Tensor, x_L: Tensor, check_finite: bool) -> Tensor:
    """The specification as [B, S, K], in the dtype of ``x_L`` (rounded to nearest where that is narrower).

    Raises:
        TypeError: if C is no dense tensor of real numbers.
        ValueError: on a wrong shape or device, or a value that is not finite in x's dtype.
    """
    if isinstance(C, Tensor) and C.device != x_L.device:
        raise ValueError(f"C is on {C.device}, the input on {x_L.device}; make them agree")
    C = with_values("C", C, _ROWS, "a floating-point or integer dtype", check_finite)
    samples, outputs = x_L.shape[0], chain.num_outputs
    if C.dim() == 2:
        C = C.expand(samples, *C.shape)
    if C.dim() != 3 or C.shape[0] != samples or C.shape[2] != outputs or C.shape[1] < 1:
        raise ValueError(f"C: expected [{samples}, S, {outputs}] or [S, {outputs}], got {list(C.shape)}")
    C = C.to(x_L.dtype)
    if check_finite and not all_finite(C):
        raise ValueError(f"C: holds NaN or infinity in {x_L.dtype}")
    return C


def margins(y: Tensor, num_classes: int = 10, *, check_labels: bool = True) -> Tensor:
    """The margins f_y - f_j for all j != y, j ascending, as a specification matrix.

    Args:
        y: labels [B], an integer dtype, each in [0, num_classes).
        num_classes: K, at least 2.
        check_labels: check that every label is in range (on a GPU this waits for the device).

    Returns:
        C [B, K-1, K], the default floating dtype, on y's device.

    Raises:
        TypeError: if y is not a dense integer tensor, or num_classes no whole number.
        ValueError: if num_classes is below 2, or y is not one-dimensional, is empty, or a label is out of range.
    """
    if not isinstance(y, Tensor):
        raise TypeError(f"y: expected an integer tensor, got {type(y).__name__}")
    y = with_values("y", y, _LABELS, "an integer tensor", check_labels)
    num_classes = whole_number("num_classes", num_classes, 2)
    check_labels = flag("check_labels", check_labels)
    if y.dim() != 1 or y.numel() == 0:
        raise ValueError(f"y: expected [B] with B >= 1, got {list(y.shape)}")
    y = y.long()
    if check_labels and (y.min() < 0 or y.max() >= num_classes):
        raise ValueError(f"y: labels must lie in [0, {num_classes}), got {int(y.min())} to {int(y.max())}")
    eye = torch.eye(num_classes, device=y.device)
    rows = torch.arange(num_classes - 1, device=y.device)
    others = rows + (rows >= y[:, None])  # j ascending, with j = y left out
    return eye[y][:, None, :] - eye[others]
