"""The fitness of a member: its mean robust cross-entropy on the current mini-batch."""

import time
from dataclasses import dataclass

import torch
from torch import Tensor

import glsk
from glsk.precision import using_precision, validate_for_training


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


class RobustLoss:
    """Mean robust cross-entropy ln(1 + sum_j exp(-lower_j)) over a mini-batch (paper, Eqs. 2 and 3, section 2.1).

    Args:
        bounded: the network's architecture.
        method: the relaxation, any name :func:`glsk.canonical_method` accepts.
        num_classes: K.
        backend: as in ``compute_bounds``.
        clip: the data range.
        precision: of a GPU's products, a name of :data:`glsk.precision.TRAINING`.

    Attributes:
        seconds: wall-clock seconds spent in ``compute_bounds`` since the last reset.
    """

    def __init__(
        self,
        bounded: "glsk.BoundedModule",
        method: str,
        num_classes: int,
        *,
        backend: str = "auto",
        clip: tuple[float, float] = (0.0, 1.0),
        precision: str = "tf32x3",
    ) -> None:
        self.bounded, self.method, self.num_classes = bounded, method, num_classes
        self.backend, self.clip, self.precision = backend, clip, validate_for_training(precision)
        self.seconds = 0.0

    def __call__(self, batch: MiniBatch, params: Tensor | None = None) -> Tensor:
        """The losses [P] of members ``params`` [P, D]; without them the loss [] of the module's own weights.

        Raises:
            NumericalError: if a bound is NaN.
        """
        margins = glsk.margins(batch.y, self.num_classes).to(batch.x.dtype)
        started = self._clock(batch.x)
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
            )
        self.seconds += self._clock(batch.x) - started
        return glsk.robust_cross_entropy(lower)

    @staticmethod
    def _clock(x: Tensor) -> float:
        if x.is_cuda:  # kernels run on after the call returns
            torch.cuda.synchronize(x.device)
        return time.perf_counter()
