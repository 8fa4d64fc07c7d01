"""Natural, PGD-adversarial and certified accuracy over a test set."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

import glsk
from glsk.device import check_device
from glsk.precision import accurate
from glsk.training.attacks import pgd
from glsk.training.seeds import stream


@dataclass(frozen=True)
class Evaluation:
    """Shares of the test samples, in [0, 1].

    Attributes:
        samples: how many were evaluated.
        eps: perturbation size, in data units.
        natural: classified correctly.
        adversarial: still correct under PGD (an upper bound of the robust accuracy).
        certified: method -> share with every margin's lower bound above 0 (a lower bound of it).
        contradictions: samples some method certified although PGD broke them: 0, but for rounding at a margin of 0.
    """

    samples: int
    eps: float
    natural: float
    adversarial: float
    certified: dict[str, float]
    contradictions: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)


def evaluate(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    methods: Sequence[str] = ("CROWN",),
    num_classes: int = 10,
    attack_steps: int = 40,
    attack_restarts: int = 3,
    batch_size: int = 256,
    backend: str = "auto",
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    clip: tuple[float, float] = (0.0, 1.0),
    seed: int = 0,
) -> Evaluation:
    """Evaluate ``net``; it comes back on its own device and in its own dtype.

    Args:
        net: logits [B, num_classes] of images [B, C, H, W].
        x: test images [N, C, H, W] in data units.
        y: labels [N].
        eps: L-infinity radius, in data units.
        methods: relaxations; a sample counts as certified by a method iff all its margins' lower bounds exceed 0.
        num_classes: K.
        attack_steps: of PGD on the margin loss; 0 restarts leave the attack out, adversarial then equals natural.
        attack_restarts: of PGD.
        batch_size: samples at a time; the result does not depend on it, but for the attack's random starts.
        backend: of the bounds.
        device: where to compute.
        dtype: float32, or float64 for bounds that rounding hardly touches.
        clip: the data range.
        seed: of the attack's random starts.

    Raises:
        ValueError: no samples, unknown method, or a device that is not here.
    """
    if not len(x):
        raise ValueError("evaluate: no samples")
    check_device(device)
    names = [glsk.canonical_method(method) for method in methods]
    parameter = next(net.parameters())
    before = parameter.dtype, parameter.device
    natural = adversarial = contradictions = 0
    certified = dict.fromkeys(names, 0)
    net.to(device=device, dtype=dtype)
    try:
        bounded = glsk.BoundedModule(net, tuple(x.shape[1:]))
        for index, start in enumerate(range(0, len(x), batch_size)):
            images = x[start : start + batch_size].to(device=device, dtype=dtype)
            labels = y[start : start + batch_size].to(device)
            with torch.no_grad():
                correct = net(images).argmax(dim=1) == labels
            robust = correct.clone()
            if attack_restarts and bool(correct.any()):
                robust[correct] = _survives(
                    net, images[correct], labels[correct], eps, attack_steps, attack_restarts, clip, (seed, index)
                )
            natural, adversarial = natural + int(correct.sum()), adversarial + int(robust.sum())
            proved = torch.zeros_like(correct)
            for name in names:
                holds = certify_batch(
                    bounded, images, labels, eps=eps, method=name, num_classes=num_classes, backend=backend, clip=clip
                )
                certified[name] += int(holds.sum())
                proved |= holds
            contradictions += int((proved & ~robust).sum())
    finally:
        net.to(dtype=before[0], device=before[1])
    total = len(x)
    shares = {name: count / total for name, count in certified.items()}
    return Evaluation(total, eps, natural / total, adversarial / total, shares, contradictions)


def certify_batch(
    bounded: "glsk.BoundedModule",
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    method: str = "CROWN",
    num_classes: int = 10,
    backend: str = "auto",
    clip: tuple[float, float] = (0.0, 1.0),
) -> Tensor:
    """Which samples [B] (bool) have every margin f_y - f_j bounded above 0 on their clipped eps-ball.

    Products have the accuracy of float32, whatever has been chosen by :func:`glsk.precision.set_precision`.
    """
    with torch.no_grad(), accurate():
        lower, _ = bounded.compute_bounds(
            x,
            eps=eps,
            clip=clip,
            C=glsk.margins(y, num_classes).to(x.dtype),
            method=method,
            backend=backend,
            bound_upper=False,
        )
    return (lower > 0).all(dim=1)


def _survives(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    steps: int,
    restarts: int,
    clip: tuple[float, float],
    seed: tuple[int, int],
) -> Tensor:
    """Which of the correctly classified samples [B] are still correct on the worst point PGD found."""
    generator = stream(seed[0], "evaluation attack", seed[1])
    worst = pgd(net, x, y, eps=eps, steps=steps, restarts=restarts, loss="margin", clip=clip, generator=generator)
    with torch.no_grad():
        return net(worst).argmax(dim=1) == y
