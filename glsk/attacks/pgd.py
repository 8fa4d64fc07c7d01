"""Projected gradient descent in the L-infinity ball (Madry et al., 2018)."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Loss = Literal["ce", "margin"]


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of each sample [B]."""
    return functional.cross_entropy(logits, y, reduction="none")


def negative_margin(logits: Tensor, y: Tensor) -> Tensor:
    """max_j (f_j - f_y), j != y, of each sample [B]: positive exactly when the sample is misclassified."""
    target = logits.gather(1, y[:, None])
    others = logits.scatter(1, y[:, None], float("-inf"))
    return others.amax(dim=1) - target[:, 0]


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"ce": cross_entropy, "margin": negative_margin}


def pgd(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    steps: int = 40,
    step_size: float | None = None,
    restarts: int = 1,
    loss: Loss = "ce",
    clip: tuple[float, float] = (0.0, 1.0),
    generator: torch.Generator,
) -> Tensor:
    """The point of each sample's box with the largest loss found by sign-gradient ascent from random starts.

    Args:
        net: images [B, C, H, W] to logits [B, K]; its parameters get no gradient.
        x: images [B, C, H, W], in data units.
        y: labels [B].
        eps: radius of the ball, in data units; the ball is clipped to ``clip``.
        steps: ascent steps a restart; 0 keeps the random start.
        step_size: of one ascent step, in data units; default 2.5 * eps / steps.
        restarts: independent random starts, at least 1; the worst point of all is kept.
        loss: "ce" (cross-entropy) or "margin" (largest wrong logit minus the right one).
        clip: the data range.
        generator: CPU generator of the random starts.

    Returns:
        Images of x's shape, dtype and device, inside the ball and the data range.

    Raises:
        ValueError: unknown loss, or a negative or zero size or count where that makes no sense.
    """
    if loss not in LOSSES:
        raise ValueError(f"loss: unknown {loss!r}; known: {', '.join(LOSSES)}")
    if eps < 0 or steps < 0 or restarts < 1:
        raise ValueError(f"attack: eps {eps} and steps {steps} must be >= 0, restarts {restarts} >= 1")
    step_size = 2.5 * eps / max(steps, 1) if step_size is None else step_size
    lower, upper = (x - eps).clamp(*clip), (x + eps).clamp(*clip)
    worst = x
    with torch.no_grad():
        worst_loss = LOSSES[loss](net(x), y)
    for _ in range(restarts):
        noise = torch.rand(x.shape, generator=generator, dtype=x.dtype).to(x.device)
        point = lower + (upper - lower) * noise
        for _ in range(steps):
            gradient = _input_gradient(net, point, y, LOSSES[loss])
            point = torch.clamp(point + step_size * gradient.sign(), lower, upper)
        with torch.no_grad():
            reached = LOSSES[loss](net(point), y)
        worse = reached > worst_loss
        worst = torch.where(worse[:, None, None, None], point, worst)
        worst_loss = torch.where(worse, reached, worst_loss)
    return worst


def _input_gradient(net: nn.Module, x: Tensor, y: Tensor, loss: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(loss(net(x), y).sum(), x)
    return gradient
