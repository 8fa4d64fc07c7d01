"""PGPE (paper, section 3.1; Sehnke et al., 2010), by evotorch.

evotorch's order within a step: follow the gradient of the previous population, sample a new one, evaluate it. So after
n steps n - 1 updates have been made, and what determines the rest of the run is the centre, the standard deviation,
the optimiser, and the generator as it was before the last sampling; the last population is drawn and evaluated again
on resuming instead of being stored.

Where a device runs on after a call returns, a step only queues its work, and the step after it has been queued when its
losses are read. An update by losses that turn out not to be finite is taken back.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from glsk import settings
from glsk.errors import NumericalError
from glsk.estimators import optimizer_state
from glsk.estimators.base import Estimator, Job, State, check_finite
from glsk.objectives.base import MiniBatch, Span
from glsk.transfer import Mark, runs_behind

if TYPE_CHECKING:
    from evotorch.algorithms import PGPE

    from glsk.estimators.population.reading import Reading

OPTIMIZERS = ("adam", "clipup")
_RANKINGS = ("none", "centered")

_Point = tuple[Tensor, Tensor, Any]
"""Centre, standard deviation, optimiser."""


@dataclass(frozen=True)
class PgpeSettings:
    """Settings of ``pgpe``; the defaults are the paper's (section 4).

    Attributes:
        popsize: P, even (members come in antithetic pairs).
        stdev_init: initial standard deviation of the members, sigma_PGPE.
        stdev_lr: learning rate of the standard deviation.
        optimizer: of the centre, "adam" or "clipup".
        ranking: "none" (raw fitness, as in the paper's formula) or "centered".

    Raises:
        ValueError: naming the setting, if a value makes no sense.
    """

    popsize: int = 256
    stdev_init: float = 1e-3
    stdev_lr: float = 0.1
    optimizer: str = "adam"
    ranking: str = "none"

    def __post_init__(self) -> None:
        settings.check(self)
        settings.check_known("ranking", self.ranking, _RANKINGS)
        check_population(self)


def check_population(own: Any) -> None:
    """Raises ValueError naming the setting of a population that makes no sense."""
    settings.check_known("optimizer", own.optimizer, OPTIMIZERS)
    settings.check_positive(own, "stdev_init")
    if own.popsize < 2 or own.popsize % 2:
        raise ValueError(f"popsize: expected an even number, at least 2 (pairs), got {own.popsize}")


class Pgpe(Estimator):
    """PGPE with antithetic members; the centre follows Adam or ClipUp.

    Args:
        job: all members see its mini-batches; the weights of its network are the first centre.
        settings: a :class:`PgpeSettings`.
        late: queue steps without waiting for the device; default on a GPU that this process alone works for.

    Raises:
        ValueError: late, and an image or a label is out of range.
    """

    kind = "pgpe"
    Settings: ClassVar[type] = PgpeSettings
    differentiates = False
    has_actors = True

    def __init__(self, job: Job, settings: Any = None, *, late: bool | None = None) -> None:
        super().__init__(job, settings)
        from glsk.estimators.population.problem import MembersProblem  # evotorch takes seconds to import

        self.late = runs_behind(job.device) and job.actors < 2 if late is None else late
        if self.late:
            job.check_data()
        make, checked = job.objective, not self.late
        self.problem = MembersProblem(
            sum(p.numel() for p in job.net.parameters()),
            lambda: make(checked),
            device=job.device,
            actors=job.actors,
            threads=job.threads,
            seed=job.seed,
            address=job.ray_address,
        )
        centre = parameters_to_vector(job.net.parameters()).detach().to(self.problem.device)
        self.algorithm = self._build(centre, torch.full_like(centre, self.settings.stdev_init))
        self.problem.centre = lambda: self._status("center")
        self._generator_before = self._generator().get_state()
        self._last_loss = float("nan")
        self._unread: tuple[int, Reading] | None = None

    def _build(self, centre: Tensor, stdev: Tensor) -> "PGPE":
        from evotorch.algorithms import PGPE

        from glsk.estimators.population.clipup import ClipUp

        own = self.settings
        optimizer: str | ClipUp = "adam"
        if own.optimizer == "clipup":
            optimizer = ClipUp(
                solution_length=len(centre), dtype=centre.dtype, stepsize=self.job.lr(0), device=self.problem.device
            )
        return PGPE(
            self.problem,
            popsize=own.popsize,
            center_learning_rate=self.job.lr(0),
            stdev_learning_rate=own.stdev_lr,
            center_init=centre,
            stdev_init=stdev,
            stdev_min=-math.inf,  # as without; but a limit left out is copied to the device in every step
            stdev_max=math.inf,
            optimizer=optimizer,
            # evotorch's gradient carries a factor sigma^2; without the same factor Adam's epsilon would drown it.
            optimizer_config={"epsilon": 1e-8 * own.stdev_init**2},
            ranking_method=self._ranking(),
            symmetric=True,
        )

    def _ranking(self) -> str | None:
        return None if self.settings.ranking == "none" else str(self.settings.ranking)

    def _generator(self) -> torch.Generator:
        generator = self.problem.generator
        assert generator is not None
        return generator

    def step(self, index: int) -> Mapping[str, float]:
        # This step's update follows losses that nobody has looked at yet: where to return to, should they be no good.
        unread, point = self._unread, self._point() if self.late else None
        start = Mark(self.problem.device) if unread is None else unread[1].end
        batch, lr = self.job.minibatch(index), self.job.lr(index)
        self._set_lr(lr)
        self.problem.batch = batch
        self._generator_before = self._generator().get_state()
        self._advance(index)
        losses = self.losses()
        found: dict[str, Tensor | float] = {
            "loss": losses.mean(),
            "loss_min": losses.min(),
            "lr": lr,
            "eps": batch.eps,
            "stdev": self._status("stdev").mean(),
            "samples": len(batch.x),
            "members": len(losses),
        }
        more, spans = self._look(batch, index)
        found.update(more)
        if point is None:
            values = {name: float(value) if isinstance(value, Tensor) else value for name, value in found.items()}
            self._check(values, index)
            seconds = self.problem.bounds_seconds + sum(span.seconds() for span in spans)
            return {**values, "bounds_s": seconds, "elsewhere_cpu_s": self.problem.actors_cpu_seconds}
        from glsk.estimators.population.reading import Reading

        reading = Reading(found, start, [*self.problem.spans, *spans])
        self._unread = index, reading
        if unread is not None:
            self._judge(*unread, point)
        return reading

    def _look(self, batch: MiniBatch, index: int) -> tuple[dict[str, Tensor], list[Span]]:
        """What else there is to find out of the population that was just evaluated, and where its time went."""
        return {}, []

    def _check(self, found: Mapping[str, float], index: int) -> None:
        """Raises NumericalError if what step ``index`` found must not be followed."""
        self._last_loss = check_finite(found["loss"], self.name, index)

    def settle(self) -> None:
        unread, self._unread = self._unread, None
        if unread is not None:
            self._judge(*unread)

    def _judge(self, index: int, reading: "Reading", before: _Point | None = None) -> None:
        """Wait for what step ``index`` found; if it is not finite, return to ``before`` the update that follows it."""
        try:
            self._check(reading, index)
        except NumericalError:
            self._unread = None
            if before is not None:
                self._return_to(before)
            raise

    def losses(self) -> Tensor:
        """The fitnesses [P] of the current population."""
        population = self.algorithm.population
        assert population is not None
        return population.access_evals(0).detach()

    def _status(self, name: str) -> Tensor:
        """evotorch's own tensor; ``algorithm.status`` wraps it."""
        return self.algorithm.get_status_value(name).detach()

    def _advance(self, index: int) -> None:
        try:
            self.algorithm.step()
        except NumericalError as error:
            raise NumericalError(f"{self.name}: step {index + 1}: {error}; nothing was updated with it") from error
        except Exception as error:
            if self.problem.actors is None:
                raise
            from glsk.estimators.population.problem import from_actor

            raise from_actor(error) from error

    def _set_lr(self, lr: float) -> None:
        optimizer = self.algorithm.optimizer
        assert optimizer is not None
        group = optimizer.param_groups[0]
        group["lr"] = lr
        if self.settings.optimizer == "clipup":
            group["max_speed"] = 2.0 * lr  # evotorch ties it to the learning rate only at the start

    def _point(self) -> _Point:
        """Where the search stands. evotorch and ClipUp make new tensors in every step; Adam changes its own."""
        optimizer = self.algorithm.optimizer
        held = optimizer_state.hold(optimizer) if self.settings.optimizer == "adam" else optimizer._velocity
        return self._status("center"), self._status("stdev"), held

    def _return_to(self, point: _Point) -> None:
        centre, stdev, held = point
        self.algorithm = self._build(centre, stdev)
        if self.settings.optimizer == "adam":
            self.algorithm.optimizer.load_state_dict(held)
        else:
            self.algorithm.optimizer._velocity = held

    def export(self) -> None:
        self.settle()
        with torch.no_grad():
            vector_to_parameters(self._status("center").clone().to(self.job.device), self.job.net.parameters())

    def state(self) -> State:
        self.settle()
        tensors = {"stdev": self._status("stdev").clone().cpu(), "generator": self._generator_before}
        meta: dict[str, Any] = {"loss": self._last_loss}
        optimizer = self.algorithm.optimizer
        if self.settings.optimizer == "adam":
            packed, meta["optimizer"] = optimizer_state.pack(optimizer)
            tensors.update({f"optimizer/{name}": value for name, value in packed.items()})
        else:
            tensors["optimizer/velocity"] = optimizer._velocity.clone().cpu()  # ClipUp has no public state
        return tensors, meta

    def restore(self, tensors: dict[str, Tensor], meta: dict[str, Any], index: int) -> None:
        centre = parameters_to_vector(self.job.net.parameters()).detach().to(self.problem.device)
        self.algorithm = self._build(centre, tensors["stdev"].to(self.problem.device))
        packed = {n.removeprefix("optimizer/"): v for n, v in tensors.items() if n.startswith("optimizer/")}
        optimizer = self.algorithm.optimizer
        if self.settings.optimizer == "adam":
            optimizer_state.unpack(optimizer, packed, meta["optimizer"])
        else:
            optimizer._velocity = packed["velocity"].to(self.problem.device)
        self._generator().set_state(tensors["generator"])
        self.step(index - 1)  # the first step of a new PGPE only samples and evaluates
        self.settle()
        self.drifted = self._last_loss != meta["loss"]

    def close(self) -> None:
        if self.problem.actors is not None:
            self.problem.kill_actors()
