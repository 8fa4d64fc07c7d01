"""Natural, PGD-adversarial and certified accuracy over a test set."""

import copy
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

import glsk
from glsk import backends
from glsk.attacks import pgd
from glsk.device import check_device
from glsk.errors import NumericalError
from glsk.seeds import stream
from glsk.verify.margins import certified_rows, lower_margins


@dataclass(frozen=True)
class Evaluation:
    """Shares of the test samples, in [0, 1].

    Attributes:
        samples: how many were evaluated.
        eps: perturbation size, in data units.
        natural: classified correctly.
        adversarial: still correct under PGD (an upper bound of the robust accuracy); None where none was measured.
        certified: method -> share with every margin's lower bound above 0 (a lower bound of it).
        contradictions: samples that a method certified although PGD broke them. In float64 that is an error, so 0; in
            float32 it happens at margins of 0 but for rounding.
    """

    samples: int
    eps: float
    natural: float
    adversarial: float | None
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
    dtype: torch.dtype = torch.float64,
    clip: tuple[float, float] = (0.0, 1.0),
    seed: int = 0,
) -> Evaluation:
    """Evaluate a copy of ``net``, which itself is left as it is.

    What "certified" says in float64: in real arithmetic every margin of the network as stored is above 0 on the whole
    ball, whatever rounding did to the bounds (``docs/soundness.md``). A verdict of float32 is an estimate, good enough
    to watch a training run.

    In float64 the predictions, the check of every adversarial point and every certified sample's bounds are float64's;
    float32 only searches for adversarial points, and tells which samples are clearly not certified.

    Args:
        net: logits [B, num_classes] of images [B, C, H, W].
        x: test images [N, C, H, W] in data units.
        y: labels [N].
        eps: L-infinity radius, in data units.
        methods: relaxations, each counted once whatever it is called; a sample counts as certified by a method iff all
            its margins' lower bounds are above 0.
        num_classes: K.
        attack_steps: of PGD on the margin loss.
        attack_restarts: of PGD; 0 leaves the attack out, and ``adversarial`` is None.
        batch_size: samples at a time; the result does not depend on it, but for the attack's random starts.
        backend: of the bounds; one that does not serve float64 only searches, and "auto" decides.
        device: where to compute.
        dtype: in which to decide, float64 or float32.
        clip: the data range.
        seed: of the attack's random starts.

    Raises:
        ValueError: no samples, bad labels, sizes or settings, unknown method, or a device that is not here.
        NumericalError: logits are not finite, or (in float64) a sample is both broken by PGD and certified, which
            would be a fault in the bounds; it is named.
    """
    names = list(dict.fromkeys(glsk.canonical_method(method) for method in methods))
    _check(x, y, eps, num_classes, batch_size, attack_steps, attack_restarts, dtype)
    target = check_device(device)
    exact = copy.deepcopy(net).to(device=target, dtype=dtype)
    single = exact if dtype == torch.float32 else copy.deepcopy(net).to(device=target, dtype=torch.float32)
    shape = tuple(x.shape[1:])
    searching, deciding = glsk.BoundedModule(single, shape), glsk.BoundedModule(exact, shape)
    decides = _decides(backend, target, dtype)
    natural = adversarial = contradictions = 0
    certified = dict.fromkeys(names, 0)
    for index, start in enumerate(range(0, len(x), batch_size)):
        images = x[start : start + batch_size].to(device=target, dtype=dtype)
        labels = y[start : start + batch_size].to(target)
        logits = _logits(exact, images, start)
        correct = logits.argmax(dim=1) == labels
        robust = correct.clone()
        if attack_restarts and bool(correct.any()):
            settings: dict[str, Any] = {"eps": eps, "steps": attack_steps, "restarts": attack_restarts, "clip": clip}
            generator = stream(seed, "evaluation attack", index)
            robust[correct] = _survives(exact, single, images[correct], labels[correct], generator, **settings)
        natural, adversarial = natural + int(correct.sum()), adversarial + int(robust.sum())
        proved = torch.zeros_like(correct)
        for name in names:
            query: dict[str, Any] = {"eps": eps, "method": name, "num_classes": num_classes, "clip": clip}
            # All samples, the misclassified too: that none of them is certified is worth checking.
            rows = torch.arange(len(images), device=target)
            if dtype != torch.float32:
                rows = _possible(searching, images.float(), labels, logits, backend=backend, **query)
            holds = torch.zeros_like(correct)
            if len(rows):
                lower = lower_margins(deciding, images[rows], labels[rows], backend=decides, **query)
                holds[rows] = certified_rows(lower)
            certified[name] += int(holds.sum())
            proved |= holds
        broken = proved & ~robust
        if dtype == torch.float64 and bool(broken.any()):
            sample = start + int(broken.nonzero()[0])
            raise NumericalError(
                f"sample {sample}: certified (one of {', '.join(names)}), and yet misclassified at a point of its "
                f"{eps:g}-ball; the bounds are wrong here, please report it"
            )
        contradictions += int(broken.sum())
    total = len(x)
    shares = {name: count / total for name, count in certified.items()}
    measured = adversarial / total if attack_restarts else None
    return Evaluation(total, eps, natural / total, measured, shares, contradictions)


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

    Decided in x's dtype, which the weights must have; float64's verdicts hold in real arithmetic. Products have the
    accuracy of float32 at least, whatever has been chosen by :func:`glsk.precision.set_precision`.
    """
    lower = lower_margins(bounded, x, y, eps=eps, method=method, num_classes=num_classes, backend=backend, clip=clip)
    return certified_rows(lower)


def _check(
    x: Tensor,
    y: Tensor,
    eps: float,
    num_classes: int,
    batch_size: int,
    attack_steps: int,
    attack_restarts: int,
    dtype: torch.dtype,
) -> None:
    if not len(x):
        raise ValueError("evaluate: no samples")
    if y.shape != (len(x),):
        raise ValueError(f"y: expected {len(x)} labels, one a sample, got {list(y.shape)}")
    if int(y.min()) < 0 or int(y.max()) >= num_classes:
        raise ValueError(f"y: labels must lie in [0, {num_classes}), got {int(y.min())} to {int(y.max())}")
    if not (math.isfinite(eps) and eps >= 0):
        raise ValueError(f"eps: must be finite and >= 0, got {eps}")
    if batch_size < 1 or attack_steps < 0 or attack_restarts < 0:
        raise ValueError(
            f"evaluate: batch_size {batch_size} must be >= 1, attack_steps {attack_steps} and attack_restarts "
            f"{attack_restarts} >= 0"
        )
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"dtype: expected float32 or float64, got {dtype}")


def _decides(backend: str, device: torch.device, dtype: torch.dtype) -> str:
    """The backend asked for, or "auto" where it searches in float32 and does not serve ``dtype``."""
    backends.resolve(backend, device, torch.float32)
    try:
        backends.resolve(backend, device, dtype)
    except glsk.BackendUnavailableError:
        return "auto"
    return backend


def _logits(net: nn.Module, x: Tensor, start: int) -> Tensor:
    with torch.no_grad():
        logits: Tensor = net(x)
    bad = (~logits.isfinite()).any(dim=1).nonzero()
    if len(bad):
        raise NumericalError(f"sample {start + int(bad[0])}: the network's logits are NaN or infinite")
    return logits


def _possible(
    bounded: "glsk.BoundedModule", x: Tensor, y: Tensor, logits: Tensor, *, backend: str, **query: Any
) -> Tensor:
    """The samples that float32 does not clearly reject; it errs by far less than a thousandth of the logits' size."""
    try:
        lower = lower_margins(bounded, x, y, backend=backend, **query)
    except NumericalError:  # beyond float32
        return torch.arange(len(x), device=x.device)
    slack = 1e-3 * (1 + logits.abs().amax(dim=1))
    return (lower > -slack[:, None]).all(dim=1).nonzero()[:, 0]


def _survives(
    exact: nn.Module,
    single: nn.Module,
    x: Tensor,
    y: Tensor,
    generator: torch.Generator,
    *,
    eps: float,
    clip: tuple[float, float],
    **settings: Any,
) -> Tensor:
    """Which of the correctly classified samples [B] are still correct, by ``exact``, on the worst point PGD found."""
    found = pgd(single, x.float(), y, eps=eps, clip=clip, loss="margin", generator=generator, **settings)
    # Rounded to float32 it may lie just outside the box.
    worst = torch.min(torch.max(found.to(x), (x - eps).clamp(*clip)), (x + eps).clamp(*clip))
    with torch.no_grad():
        same: Tensor = exact(worst).argmax(dim=1) == y
    return same
