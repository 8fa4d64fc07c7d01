"""The plain gradient, the paper's GRAD (section 4, App. B.1), followed by Adam."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from glsk import settings
from glsk.estimators import optimizer_state
from glsk.estimators.base import Estimator, Job, State, check_finite
from glsk.objectives.base import MiniBatch, Span
from glsk.transfer import Mark


@dataclass(frozen=True)
class GradientSettings:
    """Settings of ``grad``.

    Attributes:
        grad_clip: largest gradient norm; 0 for no clipping.

    Raises:
        ValueError: naming the setting, if a value makes no sense.
    """

    grad_clip: float = 10.0

    def __post_init__(self) -> None:
        settings.check(self)


class Gradient(Estimator):
    """Adam on the objective's gradient at the weights."""

    kind = "grad"
    Settings: ClassVar[type] = GradientSettings

    def __init__(self, job: Job, settings: Any = None) -> None:
        super().__init__(job, settings)
        self.objective = job.objective(True)
        self.parameters = list(job.net.parameters())
        self.optimizer = torch.optim.Adam(self.parameters, fused=True)

    def step(self, index: int) -> Mapping[str, float]:
        batch, lr = self.job.minibatch(index), self.job.lr(index)
        self.optimizer.zero_grad()
        self.objective.restart()
        found, backward = self._differentiate(batch, index)
        check_finite(found["loss"], self.name, index)
        norm = nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        found["gradient_norm"] = check_finite(float(norm), self.name, index, "gradient norm")
        if self.settings.grad_clip > 0:
            nn.utils.clip_grads_with_norm_(self.parameters, self.settings.grad_clip, norm)
        self.optimizer.param_groups[0]["lr"] = lr
        self.optimizer.step()
        seconds = self.objective.seconds + backward.seconds()
        return {**found, "lr": lr, "eps": batch.eps, "samples": len(batch.x), "bounds_s": seconds}

    def _differentiate(self, batch: MiniBatch, index: int) -> tuple[dict[str, float], Span]:
        """Put the estimate into the parameters' ``grad``; what there is to tell, and the backward pass."""
        loss = self.objective(batch)
        backward = differentiate(loss)
        return {"loss": float(loss.detach())}, backward

    def state(self) -> State:
        return optimizer_state.pack(self.optimizer)

    def restore(self, tensors: dict[str, Tensor], meta: dict[str, Any], index: int) -> None:
        optimizer_state.unpack(self.optimizer, tensors, meta)


def differentiate(loss: Tensor) -> Span:
    """Run the backward pass of ``loss`` []."""
    start = Mark(loss.device)
    loss.backward()
    return Span(start, Mark(loss.device))
