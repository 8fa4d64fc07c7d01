"""What an objective is: one loss a member of a population, on a mini-batch that all members share."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

import glsk
from glsk import ops
from glsk.errors import NumericalError
from glsk.objectives import regularisers
from glsk.precision import TRAINING_DEFAULT, using_precision, validate_for_training
from glsk.transfer import Mark


@dataclass(frozen=True)
class MiniBatch:
    """What all members of a population are evaluated on.

    Attributes:
        x: images [B, C, H, W] in data units.
        y: labels [B].
        eps: perturbation size, in data units.
        step: of the phase, 0-based; with the objective's seed it determines what is random in the objective.
        ramp: how far the schedule of ``eps`` has got, from 0 to 1: ``eps`` over the phase's final one.
        centre: flat weights [D] around which the members were drawn. Where members share adversarial points, these are
            the centre's; without it the mean of the members given stands for it.
    """

    x: Tensor
    y: Tensor
    eps: float
    step: int = 0
    ramp: float = 1.0
    centre: Tensor | None = None

    def to(self, device: torch.device | str) -> "MiniBatch":
        """The same on another device."""
        centre = None if self.centre is None else self.centre.to(device)
        return replace(self, x=self.x.to(device), y=self.y.to(device), centre=centre)


@dataclass(frozen=True)
class Span:
    """A stretch of the device's work."""

    start: Mark
    end: Mark

    def seconds(self) -> float:
        """How long it took; waits for its end."""
        return self.end.seconds_since(self.start)


@dataclass(frozen=True)
class NoSettings:
    """Of an objective that has none of its own."""


class Objective(ABC):
    """A loss to minimise, mean over a mini-batch; differentiable once, in the weights.

    Args:
        bounded: the network's architecture; its module's weights serve where no members are given.
        num_classes: K.
        settings: of type :attr:`Settings`; None is the defaults.
        backend: of the bounds, as in ``compute_bounds``.
        clip: the data range.
        checked: look for NaN and infinity in inputs, weights and losses, which waits for the device. Without it nothing
            waits: the mini-batch is trusted (:func:`check_data`), and a member with a weight that is not finite or a
            bound that is NaN has the loss NaN.
        precision: of a GPU's products, a name of :data:`glsk.precision.TRAINING`.
        seed: of what is random in it.

    Attributes:
        name: as :func:`glsk.objectives.create` knows it.
        Settings: frozen dataclass of its own settings, checked as it is made (ValueError naming the setting).
        differentiable: False of a loss that has values only.
        spans: of bounds and attacks, one a call since :meth:`restart`.
    """

    name: str
    Settings: ClassVar[type] = NoSettings
    differentiable: bool = True

    def __init__(
        self,
        bounded: "glsk.BoundedModule",
        num_classes: int,
        settings: Any = None,
        *,
        backend: str = "auto",
        clip: tuple[float, float] = (0.0, 1.0),
        checked: bool = True,
        precision: str = TRAINING_DEFAULT,
        seed: int = 0,
    ) -> None:
        if settings is not None and not isinstance(settings, self.Settings):
            raise TypeError(f"settings: expected {self.Settings.__name__}, got {type(settings).__name__}")
        self.bounded, self.num_classes = bounded, num_classes
        self.settings = self.Settings() if settings is None else settings
        self.backend, self.clip, self.checked = backend, clip, checked
        self.precision, self.seed = validate_for_training(precision), seed
        self.spans: list[Span] = []

    def __call__(self, batch: MiniBatch, params: Tensor | None = None) -> Tensor:
        """The losses [P] of members ``params`` [P, D]; without them the loss [] of the module's own weights.

        Raises:
            NumericalError: if a bound or a logit is NaN (only if checked).
        """
        start = Mark(batch.x.device)
        with using_precision(self.precision):
            losses = self._losses(batch, params) + self._regularisers(batch, params)
        self.spans.append(Span(start, Mark(batch.x.device)))
        if not self.checked:
            losses = losses.masked_fill(~self._finite(params), float("nan"))
        return losses if params is not None else losses[0]

    @abstractmethod
    def _losses(self, batch: MiniBatch, params: Tensor | None) -> Tensor:
        """The losses [P]; [1] without members."""

    def _regularisers(self, batch: MiniBatch, params: Tensor | None) -> Tensor | float:
        """The warm-up regularisers [P], if the settings ask for them and eps has not reached its final value."""
        own: Any = self.settings
        weight = (1 - batch.ramp) * getattr(own, "regularisation", 0.0)
        if weight <= 0:
            return 0.0
        return weight * regularisers.warm_up(
            self.bounded,
            batch.x,
            batch.eps,
            self.clip,
            params,
            tolerance=own.regularisation_tolerance,
            backend=self.backend,
            check_finite=self.checked,
        )

    def _lower_margins(self, batch: MiniBatch, params: Tensor | None, method: str, **box: Any) -> Tensor:
        """Lower bounds [P, B, K - 1] of the margins over ``box``; by default over the ball of radius eps."""
        rows = glsk.margins(batch.y, self.num_classes, check_labels=self.checked).to(batch.x.dtype)
        lower, _ = self.bounded.compute_bounds(
            **(box or {"x": batch.x, "eps": batch.eps, "clip": self.clip}),
            C=rows,
            method=method,
            params=params,
            backend=self.backend,
            bound_upper=False,
            check_finite=self.checked,
        )
        found: Tensor = lower if params is not None else lower[None]
        return found

    def _cross_entropy(self, margins: Tensor) -> Tensor:
        """Mean cross-entropy [P] of margins [P, B, K - 1] (paper, Eq. 2), NaN where any of a member's is NaN.

        Raises:
            NumericalError: if a margin is NaN (only if checked).
        """
        # The op itself: a stand-in for a GPU, whose tensors hold no values, is refused by glsk.robust_cross_entropy.
        losses: Tensor = ops.robust_cross_entropy(margins)
        return self._known(losses, margins)

    def _known(self, losses: Tensor, margins: Tensor | None = None) -> Tensor:
        """The losses [P], NaN where anything of a member is NaN. Raises NumericalError instead, if checked."""
        found = losses if margins is None else margins
        bad = found.isnan().flatten(1).any(dim=1) if found.dim() > 1 else found.isnan()
        if not self.checked:  # a kernel's minimum or maximum may drop a NaN
            return losses.masked_fill(bad, float("nan"))
        if bad.any():
            raise NumericalError(
                f"{self.name}: a margin is NaN: the weights or the box overflow the dtype; try float64"
            )
        return losses

    def _finite(self, params: Tensor | None) -> Tensor:
        """Whether all of a member's weights are finite, [P]."""
        if params is None:
            named = [p.detach().flatten() for p in self.bounded.net.parameters()]
            ends = torch.stack([torch.stack(p.aminmax()) for p in named])
            return ends.isfinite().all()[None]
        least, greatest = params.detach().aminmax(dim=1)  # of members [P, D] no other test needs so little memory
        return least.isfinite() & greatest.isfinite()

    @property
    def seconds(self) -> float:
        """Seconds spent in bounds and attacks since :meth:`restart`; waits for the last call."""
        return sum(span.seconds() for span in self.spans)

    def restart(self) -> None:
        """Forget the spans so far."""
        self.spans = []


def check_data(x: Tensor, y: Tensor, num_classes: int, clip: tuple[float, float] = (0.0, 1.0)) -> None:
    """Check once, on the host, what an unchecked :class:`Objective` trusts.

    Raises:
        ValueError: if an image holds NaN or leaves the data range, or a label is not in [0, num_classes).
    """
    if not ((x >= clip[0]) & (x <= clip[1])).all():
        raise ValueError(f"images: every value must lie in [{clip[0]:g}, {clip[1]:g}]")
    if y.min() < 0 or y.max() >= num_classes:
        raise ValueError(f"labels must lie in [0, {num_classes}), got {int(y.min())} to {int(y.max())}")
