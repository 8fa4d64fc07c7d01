"""PGPE on the robust loss (paper, section 3.1; Sehnke et al., 2010), by evotorch.

evotorch's order within a step: follow the gradient of the previous population, sample a new one, evaluate it. So after
n steps n - 1 updates have been made, and what determines the rest of the run is the centre, the standard deviation,
the optimiser, and the generator as it was before the last sampling; the last population is drawn and evaluated again
on resuming instead of being stored.
"""

import logging
from collections.abc import Callable
from typing import Any

import torch
from evotorch import Problem, SolutionBatch
from evotorch.algorithms import PGPE
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from glsk.errors import GlskError, NumericalError
from glsk.module import BoundedModule
from glsk.training import optimizer_state
from glsk.training.batches import Batches
from glsk.training.config import Config
from glsk.training.fitness import MiniBatch, RobustLoss
from glsk.training.schedules import annealed_eps, step_lr
from glsk.training.seeds import derive_seed
from glsk.training.stage import Stage, State, check_loss

logging.getLogger("evotorch").setLevel(logging.WARNING)  # it announces every problem it builds


class RobustLossProblem(Problem):
    """Minimise the robust loss of a network's flat weights [D], on a mini-batch that all members share.

    Args:
        net: the architecture.
        make_loss: builds the robust loss; called once in every process that evaluates.
        device: where population and mini-batch live.
        actors: Ray actors, each of which evaluates a part of the population; 0 or 1 for none.
        threads: CPU threads of an actor.
        seed: of the population's generator.

    Attributes:
        batch: the mini-batch; set it before every evaluation.
        bounds_seconds: time in the bounds of the last evaluation (of the slowest actor).
    """

    def __init__(
        self,
        net: nn.Module,
        make_loss: Callable[[], RobustLoss],
        *,
        device: str = "cpu",
        actors: int = 0,
        threads: int = 1,
        seed: int = 0,
    ) -> None:
        self._make_loss, self._loss = make_loss, None  # type: tuple[Callable[[], RobustLoss], RobustLoss | None]
        self.actors_wanted, self.threads = actors if actors > 1 else 0, threads
        self.batch: MiniBatch | None = None
        self.bounds_seconds = 0.0
        on_gpu = torch.device(device).type == "cuda"
        super().__init__(
            objective_sense="min",
            solution_length=sum(p.numel() for p in net.parameters()),
            dtype=torch.float32,
            device="cpu" if self.actors_wanted else device,
            num_actors=self.actors_wanted,
            num_gpus_per_actor="max" if on_gpu and self.actors_wanted else None,
            store_solution_stats=False,
            seed=seed,
        )
        self._evaluates_on = device
        self.start_actors(seed)

    def start_actors(self, seed: int) -> None:
        """Start Ray's actors, if any; the population's generator then is at the start of its stream in either case."""
        if self.actors_wanted:
            _start_ray(self.actors_wanted)
            self.all_remote_problems()  # evotorch draws the actors' seeds from the generator here
        self.manual_seed(seed)

    def _evaluate_batch(self, batch: SolutionBatch) -> None:
        assert self.batch is not None
        if self._loss is None:
            if self.is_remote:
                torch.set_num_threads(self.threads)
            self._loss = self._make_loss()
        self._loss.seconds = 0.0
        members = batch.access_values(keep_evals=True).to(self._evaluates_on)
        with torch.no_grad():
            losses = self._loss(_to(self.batch, self._evaluates_on), members)
        self.bounds_seconds = self._loss.seconds
        batch.set_evals(losses.to(batch.device))

    def seed(self, seed: int) -> None:
        """Called by evotorch 0.6.1 when an actor starts, though its own Problem has only ``manual_seed``."""
        self.manual_seed(seed)

    # evotorch's hooks that keep actors in step with the main process: the mini-batch out, the time back.

    def _make_sync_data_for_actors(self) -> MiniBatch | None:
        return None if self.batch is None else _to(self.batch, "cpu")

    def _use_sync_data_from_main(self, received: MiniBatch) -> None:
        self.batch = received

    def _make_sync_data_for_main(self) -> float:
        return self.bounds_seconds

    def _use_sync_data_from_actors(self, received: list[float]) -> None:
        self.bounds_seconds = max(received)

    @property
    def _nonserialized_attribs(self) -> list[str]:
        return ["_loss", "batch"]


class Pgpe(Stage):
    """PGPE with antithetic members; the centre follows Adam or ClipUp.

    Args:
        net: the network; its weights are the first centre.
        input_shape: of one sample.
        num_classes: K.
        batches: mini-batches; all members see the same one.
        config: schedules, population and engine settings.
    """

    name = "pgpe"

    def __init__(
        self, net: nn.Module, input_shape: tuple[int, ...], num_classes: int, batches: Batches, config: Config
    ) -> None:
        self.net, self.batches, self.config = net, batches, config
        self.steps_per_epoch = batches.steps_per_epoch
        self.steps = config.limited(config.epochs * self.steps_per_epoch)

        def make_loss() -> RobustLoss:
            bounded = BoundedModule(net, input_shape)
            return RobustLoss(bounded, config.method, num_classes, backend=config.backend, precision=config.precision)

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

    def _build(self, centre: Tensor, stdev: Tensor) -> PGPE:
        config = self.config
        # evotorch's gradient estimate carries a factor sigma^2; without the same factor Adam's epsilon would drown it.
        optimizer_config = {"epsilon": 1e-8 * config.stdev_init**2} if config.optimizer == "adam" else None
        return PGPE(
            self.problem,
            popsize=config.popsize,
            center_learning_rate=config.lr,
            stdev_learning_rate=config.stdev_lr,
            center_init=centre,
            stdev_init=stdev,
            optimizer=config.optimizer,
            optimizer_config=optimizer_config,
            ranking_method=None if config.ranking == "none" else config.ranking,
            symmetric=True,
        )

    def _generator(self) -> torch.Generator:
        generator = self.problem.generator
        assert generator is not None
        return generator

    def step(self, index: int) -> dict[str, float]:
        x, y = self.batches.batch(index)
        eps = annealed_eps(self.config.eps, index, self.config.anneal_epochs * self.steps_per_epoch)
        lr = step_lr(self.config.lr, self.batches.epoch(index), self.config.milestones, self.config.gamma)
        self._set_lr(lr)
        self.problem.batch = MiniBatch(x, y, eps)
        self._generator_before = self._generator().get_state()
        self._advance(index)
        losses = self.losses()
        self._last_loss = check_loss(float(losses.mean()), self.name, index)
        return {
            "loss": self._last_loss,
            "loss_min": float(losses.min()),
            "lr": lr,
            "eps": eps,
            "stdev": float(self.algorithm.status["stdev"].mean()),
            "samples": len(x),
            "members": len(losses),
            "bounds_s": self.problem.bounds_seconds,
        }

    def losses(self) -> Tensor:
        """The fitnesses [P] of the current population."""
        population = self.algorithm.population
        assert population is not None
        return population.access_evals(0).detach()

    def _advance(self, index: int) -> None:
        try:
            self.algorithm.step()
        except NumericalError as error:
            raise NumericalError(f"{self.name}: step {index + 1}: {error}; nothing was updated with it") from error
        except Exception as error:
            if self.problem.actors is None:
                raise
            raise _from_actor(error) from error

    def _set_lr(self, lr: float) -> None:
        optimizer = self.algorithm.optimizer
        assert optimizer is not None
        group = optimizer.param_groups[0]
        group["lr"] = lr
        if self.config.optimizer == "clipup":
            group["max_speed"] = 2.0 * lr  # evotorch ties it to the learning rate only at the start

    def export(self) -> None:
        centre = self.algorithm.status["center"].clone().as_subclass(Tensor)
        with torch.no_grad():
            vector_to_parameters(centre.to(self.config.device), self.net.parameters())

    def state(self) -> State:
        tensors = {
            "stdev": self.algorithm.status["stdev"].clone().as_subclass(Tensor).cpu(),
            "generator": self._generator_before,
        }
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
        self.drifted = self._last_loss != meta["loss"]

    def close(self) -> None:
        if self.problem.actors is not None:
            self.problem.kill_actors()


def _to(batch: MiniBatch, device: str) -> MiniBatch:
    return MiniBatch(batch.x.to(device), batch.y.to(device), batch.eps)


def _start_ray(actors: int) -> None:
    """A local Ray without dashboard, unless the caller has started one."""
    import ray

    if not ray.is_initialized():
        ray.init(num_cpus=actors, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)


def _from_actor(error: Exception) -> Exception:
    """What went wrong in an actor, without Ray's wrapping: the actor's own exception, or that it died."""
    import ray

    if not isinstance(error, ray.exceptions.RayError):
        return error
    cause = getattr(error, "cause", None)
    if isinstance(cause, GlskError | ValueError | OSError):
        return cause
    return GlskError(f"an actor failed: {str(cause or error).strip().splitlines()[-1].strip()}")
