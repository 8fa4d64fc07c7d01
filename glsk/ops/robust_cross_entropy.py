"""The robust cross-entropy of a population (paper, §2.1): CE of the worst-case logits, a function of margins only."""

import torch
from torch import Tensor

from glsk.ops import checks
from glsk.ops.registry import Op


def robust_cross_entropy_reference(margin_lower: Tensor) -> Tensor:
    """mean over the batch of ln(1 + sum_j exp(-margin_lower_j)), computed without overflow.

    Args:
        margin_lower: lower bounds of f_y - f_j, j != y, [P, B, S].

    Returns:
        One loss a member, [P].
    """
    total = torch.logsumexp(-margin_lower, dim=2)
    return torch.logaddexp(total, torch.zeros_like(total)).mean(dim=1)


robust_cross_entropy = Op(
    "robust_cross_entropy",
    "(Tensor margin_lower, str backend) -> Tensor",
    robust_cross_entropy_reference,
    lambda margin_lower: margin_lower.new_empty(margin_lower.shape[0]),
    checks.robust_cross_entropy,
)
