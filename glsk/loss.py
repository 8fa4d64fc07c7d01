"""The loss of certified training, one number a member."""

from torch import Tensor

from glsk import backends, ops
from glsk.arguments import with_values


def robust_cross_entropy(margin_lower: Tensor, backend: str = "auto") -> Tensor:
    """Robust cross-entropy: mean over the batch of ln(1 + sum_j exp(-margin_lower_j)) (paper, §2.1, eq. 2).

    Args:
        margin_lower: lower bounds of the margins f_y - f_j, j != y, [P, B, S] or [B, S], float32 or float64.
        backend: as in ``compute_bounds``.

    Returns:
        [P], or a scalar for [B, S].

    Raises:
        TypeError: if it is not a dense tensor of one of these dtypes.
        ValueError: if the shape is neither, or empty; or an unknown backend.
        glsk.BackendUnavailableError: the backend cannot run here, or not for this device or dtype.
    """
    backend = backends.validate(backend)
    margin_lower = with_values("margin_lower", margin_lower)
    if margin_lower.dim() not in (2, 3) or margin_lower.numel() == 0:
        raise ValueError(f"margin_lower: expected [P, B, S] or [B, S], not empty, got {list(margin_lower.shape)}")
    if margin_lower.dim() == 2:
        return ops.robust_cross_entropy(margin_lower[None], backend=backend)[0]
    return ops.robust_cross_entropy(margin_lower, backend=backend)
