"""The fitness of a member: its mean robust cross-entropy on the current mini-batch."""

from dataclasses import dataclass

from torch import Tensor

import glsk
from glsk import ops
from glsk.precision import TRAINING_DEFAULT, using_precision, validate_for_training
from glsk.transfer import Mark


@dataclass(frozen=True)
class MiniBatch:
    """What all members of a population are evaluated on.

    Attributes:
        x: images [B, C, H, W] in data units.
        y: labels [B].
        eps: perturbation size, in data units.
    """

    x: Tensor
    y: Tensor
    eps: float


@dataclass(frozen=True)
class Span:
    """A stretch of the device's work."""

    start: Mark
    end: Mark

    def seconds(self) -> float:
        """How long it took; waits for its end."""
        return self.end.seconds_since(self.start)


class RobustLoss:
    """Mean robust cross-entropy ln(1 + sum_j exp(-lower_j)) over a mini-batch (paper, Eqs. 2 and 3, section 2.1).

    Args:
        bounded: the network's architecture.
        method: the relaxation, any name :func:`glsk.canonical_method` accepts.
        num_classes: K.
        backend: as in ``compute_bounds``.
        clip: the data range.
        checked: look for NaN and infinity in inputs, weights and bounds, which waits for the device. Without it, which
            is for members only, nothing waits: the mini-batch is trusted (:func:`check_data`), and a member with a
            weight that is not finite or a bound that is NaN has the loss NaN.
        precision: of a GPU's products, a name of :data:`glsk.precision.TRAINING`.

    Attributes:
        spans: of ``compute_bounds``, one a call since :meth:`restart`.
    """

    def __init__(
        self,
        bounded: "glsk.BoundedModule",
        method: str,
        num_classes: int,
        *,
        backend: str = "auto",
        clip: tuple[float, float] = (0.0, 1.0),
        checked: bool = True,
        precision: str = TRAINING_DEFAULT,
    ) -> None:
        self.bounded, self.method, self.num_classes = bounded, method, num_classes
        self.backend, self.clip, self.checked = backend, clip, checked
        self.precision = validate_for_training(precision)
        self.spans: list[Span] = []

    def __call__(self, batch: MiniBatch, params: Tensor | None = None) -> Tensor:
        """The losses [P] of members ``params`` [P, D]; without them the loss [] of the module's own weights.

        Raises:
            NumericalError: if a bound is NaN (only if checked).
        """
        margins = glsk.margins(batch.y, self.num_classes, check_labels=self.checked).to(batch.x.dtype)
        start = Mark(batch.x.device)
        with using_precision(self.precision):
            lower, _ = self.bounded.compute_bounds(
                batch.x,
                eps=batch.eps,
                clip=self.clip,
                C=margins,
                method=self.method,
                params=params,
                backend=self.backend,
                bound_upper=False,
                check_finite=self.checked,
            )
        self.spans.append(Span(start, Mark(batch.x.device)))
        # The op itself: a stand-in for a GPU, whose tensors hold no values, is refused by glsk.robust_cross_entropy.
        losses = ops.robust_cross_entropy(lower if params is not None else lower[None])
        losses = losses if params is not None else losses[0]
        if self.checked or params is None:
            return losses
        # A kernel's minimum or maximum may drop a NaN, so a finite loss alone proves nothing.
        least, greatest = params.aminmax(dim=1)  # of members [P, D] no other test needs so little memory
        sound = least.isfinite() & greatest.isfinite() & ~lower.isnan().flatten(1).any(dim=1)
        return losses.masked_fill(~sound, float("nan"))

    @property
    def seconds(self) -> float:
        """Seconds spent in ``compute_bounds`` since :meth:`restart`; waits for the last call."""
        return sum(span.seconds() for span in self.spans)

    def restart(self) -> None:
        """Forget the spans so far."""
        self.spans = []


def check_data(x: Tensor, y: Tensor, num_classes: int, clip: tuple[float, float] = (0.0, 1.0)) -> None:
    """Check once, on the host, what an unchecked :class:`RobustLoss` trusts.

    Raises:
        ValueError: if an image holds NaN or leaves the data range, or a label is not in [0, num_classes).
    """
    if not ((x >= clip[0]) & (x <= clip[1])).all():
        raise ValueError(f"images: every value must lie in [{clip[0]:g}, {clip[1]:g}]")
    if y.min() < 0 or y.max() >= num_classes:
        raise ValueError(f"labels must lie in [0, {num_classes}), got {int(y.min())} to {int(y.max())}")
