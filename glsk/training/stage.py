"""What the loop needs of a way to train."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from glsk.errors import NumericalError

State = tuple[dict[str, Tensor], dict[str, Any]]
"""Tensors, and what JSON can hold."""


class Stage(ABC):
    """One phase of a run: it improves the weights of ``net`` for ``steps`` steps.

    Attributes:
        name: of the phase, in logs and checkpoints.
        net: the network; its weights are up to date after :meth:`export`.
        steps: the phase's length.
        steps_per_epoch: for the logs.
        drifted: after :meth:`restore`, the replayed loss is not what it was (another backend or machine): the run can
            go on, but not bit for bit.
        late: the device runs behind: what a step found is known, and judged, only after the next step has been queued
            or :meth:`settle` was called.
    """

    name: str
    net: nn.Module
    steps: int
    steps_per_epoch: int
    drifted: bool = False
    late: bool = False

    @abstractmethod
    def step(self, index: int) -> Mapping[str, float]:
        """Take step ``index`` (0-based; steps come in order).

        Returns:
            At least ``loss`` (finite), ``lr``, ``eps``, ``samples`` (of the mini-batch) and ``bounds_s``, the seconds
            spent in the bounds; a late stage also ``step_s``, the seconds of the whole step. Reading what a late stage
            returns waits for that step.

        Raises:
            NumericalError: the loss of this step (late: of the one before) is not finite; no update of it remains.
        """

    def settle(self) -> None:  # noqa: B027 - a default, not a gap
        """Wait for the last step and judge it, if the stage is late. Raises NumericalError as :meth:`step` does."""

    @abstractmethod
    def state(self) -> State:
        """All that :meth:`restore` needs to go on bit for bit, the weights of ``net`` left out."""

    @abstractmethod
    def restore(self, tensors: dict[str, Tensor], meta: dict[str, Any], index: int) -> None:
        """Return to :meth:`state` as it was after ``index`` steps; ``net`` already holds its weights."""

    def export(self) -> None:  # noqa: B027
        """Write the current weights into ``net``; nothing to do where they are there already."""

    def close(self) -> None:  # noqa: B027
        """Free what the phase holds outside this process."""


def check_loss(loss: float, stage: str, index: int) -> float:
    """``loss`` if it is finite. Raises NumericalError naming the phase and the step."""
    if loss - loss != 0.0:
        raise NumericalError(
            f"{stage}: the loss of step {index + 1} is {loss}; nothing was updated with it. Lower the learning rate, "
            "or start from the last checkpoint's weights (--init) with other settings"
        )
    return loss
