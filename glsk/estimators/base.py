"""What the loop needs of a way to estimate gradients and follow them, and what that is given to work on."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from glsk.errors import NumericalError
from glsk.objectives.base import MiniBatch, Objective

State = tuple[dict[str, Tensor], dict[str, Any]]
"""Tensors, and what JSON can hold."""


@dataclass(frozen=True)
class Job:
    """What an estimator works on: an objective of a network, its mini-batches and schedules.

    Attributes:
        name: of the phase, for logs and errors.
        net: the network, on ``device``; its weights are the start.
        objective: builds the objective of ``net``; called in every process that evaluates. Its argument says whether
            to look for NaN and infinity in what it is given, which waits for the device.
        minibatch: the mini-batch of a step (0-based), from the step alone.
        check_data: checks all that ``minibatch`` will give, once. Raises ValueError.
        lr: the learning rate of a step.
        steps: the phase's length.
        steps_per_epoch: for the logs.
        seed: of what the estimator draws.
        device: where the objective is evaluated, as PyTorch spells it.
        threads: CPU threads of this process, which actors on this machine share; in a cluster, of each actor. 0 leaves
            PyTorch's default, or is one in a cluster.
        actors: Ray actors that share a population; 0 or 1 evaluates in this process.
        ray_address: of the cluster they run in; empty for RAY_ADDRESS, if set, else a Ray of this process's own.
    """

    name: str
    net: nn.Module
    objective: Callable[[bool], Objective]
    minibatch: Callable[[int], MiniBatch]
    check_data: Callable[[], None]
    lr: Callable[[int], float]
    steps: int
    steps_per_epoch: int
    seed: int = 0
    device: str = "cpu"
    threads: int = 0
    actors: int = 0
    ray_address: str = ""


class Estimator(ABC):
    """Improves the weights of a job's network for its steps; it knows nothing of the objective.

    Attributes:
        kind: its name in settings.
        Settings: frozen dataclass of its own settings, checked as it is made (ValueError naming the setting).
        differentiates: whether it needs the objective's gradient.
        has_actors: whether it can share its work with actors.
        job: what it works on; the weights of ``job.net`` are up to date after :meth:`export`.
        drifted: after :meth:`restore`, the replayed loss is not what it was (another backend or machine): the run can
            go on, but not bit for bit.
        late: the device runs behind: what a step found is known, and judged, only after the next step has been queued
            or :meth:`settle` was called.
    """

    kind: ClassVar[str]
    Settings: ClassVar[type]
    differentiates: ClassVar[bool] = True
    has_actors: ClassVar[bool] = False
    job: Job
    drifted: bool = False
    late: bool = False

    def __init__(self, job: Job, settings: Any = None) -> None:
        self.job = job
        self.settings = self.Settings() if settings is None else settings

    @property
    def name(self) -> str:
        """Of the phase."""
        return self.job.name

    @property
    def steps(self) -> int:
        """The phase's length."""
        return self.job.steps

    @abstractmethod
    def step(self, index: int) -> Mapping[str, float]:
        """Take step ``index`` (0-based; steps come in order).

        Returns:
            At least ``loss`` (finite), ``lr``, ``eps``, ``samples`` (of the mini-batch) and ``bounds_s``, the seconds
            spent in the objective: bounds, attacks and their gradients; a late estimator also ``step_s``, the seconds
            of the whole step. Reading what a late one returns waits for that step.

        Raises:
            NumericalError: what this step (late: the one before) found is not finite; no update of it remains.
        """

    def settle(self) -> None:  # noqa: B027 - a default, not a gap
        """Wait for the last step and judge it, if the estimator is late. Raises NumericalError as :meth:`step` does."""

    @abstractmethod
    def state(self) -> State:
        """All that :meth:`restore` needs to go on bit for bit, the weights of the network left out."""

    @abstractmethod
    def restore(self, tensors: dict[str, Tensor], meta: dict[str, Any], index: int) -> None:
        """Return to :meth:`state` as it was after ``index`` steps; the network already holds its weights."""

    def export(self) -> None:  # noqa: B027
        """Write the current weights into the network; nothing to do where they are there already."""

    def close(self) -> None:  # noqa: B027
        """Free what is held outside this process."""


def check_finite(value: float, phase: str, index: int, what: str = "loss") -> float:
    """``value`` if it is finite. Raises NumericalError naming the phase and the step."""
    if value - value != 0.0:
        raise NumericalError(
            f"{phase}: the {what} of step {index + 1} is {value}; nothing was updated with it. Lower the learning "
            "rate, or start from the last checkpoint's weights (--init) with other settings"
        )
    return value
