"""PGPE on the robust loss (paper, section 3.1; Sehnke et al., 2010), by evotorch.

evotorch's order within a step: follow the gradient of the previous population, sample a new one, evaluate it. So after
n steps n - 1 updates have been made, and what determines the rest of the run is the centre, the standard deviation,
the optimiser, and the generator as it was before the last sampling; the last population is drawn and evaluated again
on resuming instead of being stored.

Where a device runs on after a call returns, a step only queues its work, and the step after it has been queued when its
losses are read. An update by losses that turn out not to be finite is taken back.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from evotorch.algorithms import PGPE
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from glsk.errors import NumericalError
from glsk.module import BoundedModule
from glsk.seeds import derive_seed
from glsk.training import optimizer_state
from glsk.training.batches import Batches
from glsk.training.clipup import ClipUp
from glsk.training.config import Config
from glsk.training.fitness import MiniBatch, RobustLoss, check_data
from glsk.training.problem import RobustLossProblem, from_actor
from glsk.training.reading import Reading
from glsk.training.schedules import annealed_eps, step_lr
from glsk.training.stage import Stage, State, check_loss
from glsk.transfer import Mark, runs_behind

_Point = tuple[Tensor, Tensor, Any]
"""Centre, standard deviation, optimiser."""


class Pgpe(Stage):
    """PGPE with antithetic members; the centre follows Adam or ClipUp.

    Args:
        net: the network, on the batches' device; its weights are the first centre.
        input_shape: of one sample.
        num_classes: K.
        batches: mini-batches; all members see the same one.
        config: schedules, population and engine settings.
        late: queue steps without waiting for the device; default on a GPU that this process alone works for.

    Raises:
        ValueError: late, and an image or a label is out of range.
    """

    name = "pgpe"

    def __init__(
        self,
        net: nn.Module,
        input_shape: tuple[int, ...],
        num_classes: int,
        batches: Batches,
        config: Config,
        *,
        late: bool | None = None,
    ) -> None:
        self.net, self.batches, self.config = net, batches, config
        self.steps_per_epoch = batches.steps_per_epoch
        self.steps = config.limited(config.epochs * self.steps_per_epoch)
        self.late = runs_behind(config.device) and config.actors < 2 if late is None else late
        if self.late:
            check_data(batches.x, batches.y, num_classes)
        checked = not self.late

        def make_loss() -> RobustLoss:
            bounded = BoundedModule(net, input_shape)
            return RobustLoss(
                bounded,
                config.method,
                num_classes,
                backend=config.backend,
                checked=checked,
                precision=config.precision,
            )

        self.seed = derive_seed(config.seed, "population")
        self.problem = RobustLossProblem(
            net,
            make_loss,
            device=config.device,
            actors=config.actors,
            threads=max(1, (config.threads or torch.get_num_threads()) // max(1, config.actors)),
            seed=self.seed,
        )
        centre = parameters_to_vector(net.parameters()).detach().to(self.problem.device)
        self.algorithm = self._build(centre, torch.full_like(centre, config.stdev_init))
        self._generator_before = self._generator().get_state()
        self._last_loss = float("nan")
        self._unread: tuple[int, Reading] | None = None

    def _build(self, centre: Tensor, stdev: Tensor) -> PGPE:
        config = self.config
        optimizer: str | ClipUp = "adam"
        if config.optimizer == "clipup":
            optimizer = ClipUp(
                solution_length=len(centre), dtype=centre.dtype, stepsize=config.lr, device=self.problem.device
            )
        return PGPE(
            self.problem,
            popsize=config.popsize,
            center_learning_rate=config.lr,
            stdev_learning_rate=config.stdev_lr,
            center_init=centre,
            stdev_init=stdev,
            stdev_min=-math.inf,  # as without; but a limit left out is copied to the device in every step
            stdev_max=math.inf,
            optimizer=optimizer,
            # evotorch's gradient carries a factor sigma^2; without the same factor Adam's epsilon would drown it.
            optimizer_config={"epsilon": 1e-8 * config.stdev_init**2},
            ranking_method=None if config.ranking == "none" else config.ranking,
            symmetric=True,
        )

    def _generator(self) -> torch.Generator:
        generator = self.problem.generator
        assert generator is not None
        return generator

    def step(self, index: int) -> Mapping[str, float]:
        # This step's update follows losses that nobody has looked at yet: where to return to, should they be no good.
        unread, point = self._unread, self._point() if self.late else None
        start = Mark(self.problem.device) if unread is None else unread[1].end
        x, y = self.batches.batch(index)
        eps = annealed_eps(self.config.eps, index, self.config.anneal_epochs * self.steps_per_epoch)
        lr = step_lr(self.config.lr, self.batches.epoch(index), self.config.milestones, self.config.gamma)
        self._set_lr(lr)
        self.problem.batch = MiniBatch(x, y, eps)
        self._generator_before = self._generator().get_state()
        self._advance(index)
        losses = self.losses()
        found: dict[str, Tensor | float] = {
            "loss": losses.mean(),
            "loss_min": losses.min(),
            "lr": lr,
            "eps": eps,
            "stdev": self._status("stdev").mean(),
            "samples": len(x),
            "members": len(losses),
        }
        if point is None:
            values = {name: float(value) if isinstance(value, Tensor) else value for name, value in found.items()}
            self._last_loss = check_loss(values["loss"], self.name, index)
            return {**values, "bounds_s": self.problem.bounds_seconds}
        reading = Reading(found, start, self.problem.spans)
        self._unread = index, reading
        if unread is not None:
            self._judge(*unread, point)
        return reading

    def settle(self) -> None:
        unread, self._unread = self._unread, None
        if unread is not None:
            self._judge(*unread)

    def _judge(self, index: int, reading: Reading, before: _Point | None = None) -> None:
        """Wait for the losses of step ``index``; if they are not finite, return to ``before`` their update."""
        try:
            self._last_loss = check_loss(reading["loss"], self.name, index)
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
            raise from_actor(error) from error

    def _set_lr(self, lr: float) -> None:
        optimizer = self.algorithm.optimizer
        assert optimizer is not None
        group = optimizer.param_groups[0]
        group["lr"] = lr
        if self.config.optimizer == "clipup":
            group["max_speed"] = 2.0 * lr  # evotorch ties it to the learning rate only at the start

    def _point(self) -> _Point:
        """Where the search stands. evotorch and ClipUp make new tensors in every step; Adam changes its own."""
        optimizer = self.algorithm.optimizer
        held = optimizer_state.hold(optimizer) if self.config.optimizer == "adam" else optimizer._velocity
        return self._status("center"), self._status("stdev"), held

    def _return_to(self, point: _Point) -> None:
        centre, stdev, held = point
        self.algorithm = self._build(centre, stdev)
        if self.config.optimizer == "adam":
            self.algorithm.optimizer.load_state_dict(held)
        else:
            self.algorithm.optimizer._velocity = held

    def export(self) -> None:
        self.settle()
        with torch.no_grad():
            vector_to_parameters(self._status("center").clone().to(self.config.device), self.net.parameters())

    def state(self) -> State:
        self.settle()
        tensors = {"stdev": self._status("stdev").clone().cpu(), "generator": self._generator_before}
        meta: dict[str, Any] = {"loss": self._last_loss}
        optimizer = self.algorithm.optimizer
        if self.config.optimizer == "adam":
            packed, meta["optimizer"] = optimizer_state.pack(optimizer)
            tensors.update({f"optimizer/{name}": value for name, value in packed.items()})
        else:
            tensors["optimizer/velocity"] = optimizer._velocity.clone().cpu()  # ClipUp has no public state
        return tensors, meta

    def restore(self, tensors: dict[str, Tensor], meta: dict[str, Any], index: int) -> None:
        centre = parameters_to_vector(self.net.parameters()).detach().to(self.problem.device)
        self.algorithm = self._build(centre, tensors["stdev"].to(self.problem.device))
        packed = {n.removeprefix("optimizer/"): v for n, v in tensors.items() if n.startswith("optimizer/")}
        optimizer = self.algorithm.optimizer
        if self.config.optimizer == "adam":
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
