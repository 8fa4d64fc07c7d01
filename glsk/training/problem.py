"""The robust loss as a problem of evotorch, evaluated in this process or by Ray actors."""

import logging
from collections.abc import Callable

import torch
from evotorch import Problem, SolutionBatch
from torch import nn

from glsk.errors import GlskError
from glsk.training import local_ray
from glsk.training.fitness import MiniBatch, RobustLoss, Span

logging.getLogger("evotorch").setLevel(logging.WARNING)  # it announces every problem it builds


class RobustLossProblem(Problem):
    """Minimise the robust loss of a network's flat weights [D], on a mini-batch that all members share.

    Args:
        net: the architecture.
        make_loss: builds the robust loss; called once in every process that evaluates.
        device: where population and mini-batch live; with actors, its type is where each of them evaluates.
        actors: Ray actors, each of which evaluates a part of the population; 0 or 1 for none.
        threads: CPU threads of an actor.
        seed: of the population's generator.

    Attributes:
        batch: the mini-batch; set it before every evaluation.
        spans: of the last evaluation in this process, the parts spent in the bounds.
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
        self.spans: list[Span] = []
        self._actors_seconds: list[float] = []
        kind = torch.device(device).type
        super().__init__(
            objective_sense="min",
            solution_length=sum(p.numel() for p in net.parameters()),
            dtype=torch.float32,
            device="cpu" if self.actors_wanted else device,
            num_actors=self.actors_wanted,
            num_gpus_per_actor="max" if kind == "cuda" and self.actors_wanted else None,
            store_solution_stats=False,
            seed=seed,
        )
        self._evaluates_on = kind if self.actors_wanted else device  # Ray numbers each actor's GPUs from 0
        self.start_actors(seed)

    def start_actors(self, seed: int) -> None:
        """Start Ray's actors, if any; the population's generator then is at the start of its stream in either case."""
        if self.actors_wanted:
            local_ray.start(self.actors_wanted)
            self.all_remote_problems()  # evotorch draws the actors' seeds from the generator here
        self.manual_seed(seed)

    def _evaluate_batch(self, batch: SolutionBatch) -> None:
        mini_batch = self._mini_batch()
        if self._loss is None:
            if self.is_remote:
                torch.set_num_threads(self.threads)
            self._loss = self._make_loss()
        self._loss.restart()
        members = batch.access_values(keep_evals=True).to(self._evaluates_on)
        with torch.no_grad():
            losses = self._loss(_to(mini_batch, self._evaluates_on), members)
        self.spans = self._loss.spans
        batch.set_evals(losses.to(batch.device))

    def _mini_batch(self) -> MiniBatch:
        if self.batch is None:
            raise ValueError("batch: set RobustLossProblem.batch to a MiniBatch before evaluating")
        return self.batch

    @property
    def bounds_seconds(self) -> float:
        """Time in the bounds of the last evaluation (of the slowest actor); waits for their end."""
        return max(self._actors_seconds, default=sum(span.seconds() for span in self.spans))

    def seed(self, seed: int) -> None:
        """Called by evotorch 0.6.1 when an actor starts, though its own Problem has only ``manual_seed``."""
        self.manual_seed(seed)

    # evotorch's hooks that keep actors in step with the main process: the mini-batch out, the time back.

    def _make_sync_data_for_actors(self) -> MiniBatch:
        return _to(self._mini_batch(), "cpu")

    def _use_sync_data_from_main(self, received: MiniBatch) -> None:
        self.batch = received

    def _make_sync_data_for_main(self) -> float:
        return self.bounds_seconds

    def _use_sync_data_from_actors(self, received: list[float]) -> None:
        self._actors_seconds = received

    @property
    def _nonserialized_attribs(self) -> list[str]:
        return ["_loss", "batch", "spans"]


def _to(batch: MiniBatch, device: str) -> MiniBatch:
    return batch.to(device)


def from_actor(error: Exception) -> Exception:
    """What went wrong in an actor, without Ray's wrapping: the actor's own exception, or that it died."""
    import ray

    if not isinstance(error, ray.exceptions.RayError):
        return error
    cause = getattr(error, "cause", None)
    if isinstance(cause, GlskError | ValueError | OSError):
        return cause
    return GlskError(f"an actor failed: {str(cause or error).strip().splitlines()[-1].strip()}")
