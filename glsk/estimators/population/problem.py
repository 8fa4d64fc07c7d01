"""An objective as a problem of evotorch, evaluated in this process or by Ray actors."""

import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from evotorch import Problem, SolutionBatch
from ray.util import ActorPool
from torch import Tensor

from glsk.allocator import keep_freed_memory
from glsk.errors import GlskError
from glsk.estimators.population import cluster
from glsk.objectives.base import MiniBatch, Objective, Span

_LOG = logging.getLogger(__name__)
_START_S = 300.0
"""Seconds that actors may take to start."""
_RESTART_S, _PATIENCE_S, _ATTEMPTS = 60.0, 5.0, 3
"""Of substitutes: seconds that the first may take, and that the others may take after it; how many times in a step."""

logging.getLogger("evotorch").setLevel(logging.WARNING)  # it announces every problem it builds


class MembersProblem(Problem):
    """Minimise an objective of a network's flat weights [D], on a mini-batch that all members share.

    Args:
        length: D.
        make_objective: called once in every process that evaluates.
        device: where population and mini-batch live; with actors, its type is where each of them evaluates.
        actors: Ray actors, each of which evaluates a part of the population; 0 or 1 for none.
        threads: CPU threads that actors on this machine share; of each actor in a cluster. 0 for PyTorch's default, or
            one in a cluster.
        seed: of the population's generator.
        address: of a Ray cluster; empty for the one in RAY_ADDRESS, if any, else a Ray of this process's own.

    Attributes:
        batch: the mini-batch; set it before every evaluation.
        centre: gives the weights [D] around which the members are drawn; the actors get them with the mini-batch.
        spans: of the last evaluation in this process, the parts spent in the objective.
    """

    _actors: Any

    def __init__(
        self,
        length: int,
        make_objective: Callable[[], Objective],
        *,
        device: str = "cpu",
        actors: int = 0,
        threads: int = 1,
        seed: int = 0,
        address: str = "",
    ) -> None:
        self._make_objective = make_objective
        self._objective: Objective | None = None
        self.actors_wanted = actors if actors > 1 else 0
        self.batch: MiniBatch | None = None
        self.centre: Callable[[], Tensor] | None = None
        self.spans: list[Span] = []
        self._actors_seconds: list[tuple[float, float]] = []
        self._cpu_seconds = 0.0
        kind = torch.device(device).type
        each = threads or 1
        clustered = bool(self.actors_wanted) and cluster.start(self.actors_wanted, each, address)
        self.threads = each if clustered else max(1, (threads or torch.get_num_threads()) // max(1, actors))
        super().__init__(
            objective_sense="min",
            solution_length=length,
            dtype=torch.float32,
            device="cpu" if self.actors_wanted else device,
            num_actors=self.actors_wanted,
            actor_config={"num_cpus": each} if clustered else None,
            num_gpus_per_actor="max" if kind == "cuda" and self.actors_wanted else None,
            store_solution_stats=False,
            seed=seed,
        )
        self._evaluates_on = kind if self.actors_wanted else device  # Ray numbers each actor's GPUs from 0
        self.start_actors(seed)

    def start_actors(self, seed: int) -> None:
        """Start Ray's actors, if any; the population's generator then is at the start of its stream in either case."""
        if self.actors_wanted:
            self._start(_START_S, _START_S, at_least=self.actors_wanted)
        self.manual_seed(seed)

    def _start(self, seconds: float, patience: float, at_least: int) -> None:
        """Start actors, and go on with those that answer in time. Raises GlskError if they are too few."""
        assert self.generator is not None
        before = self.generator.get_state()  # evotorch draws the actors' seeds from the generator
        self._parallelize()
        self._actors = cluster.ready(self._actors, seconds, patience)
        if len(self._actors) < at_least:
            found = len(self._actors)
            self.kill_actors()
            raise GlskError(f"actors: {found} of {self.actors_wanted} could be started within {seconds:g} s")
        self._actor_pool = ActorPool(self._actors)
        self.generator.set_state(before)

    def process(self) -> int:
        """Its id, for who asks whether an actor has started."""
        return os.getpid()

    def evaluate(self, x: SolutionBatch) -> None:
        """As evotorch's; where actors are lost on the way, what is left of them evaluates all of it again.

        The fitnesses are the same: nothing of an actor's own is in them.

        Raises:
            GlskError: none is left.
        """
        for _ in range(_ATTEMPTS):
            try:
                super().evaluate(x)
                return
            except cluster.deaths() as error:
                _LOG.warning("glsk: an actor is gone (%s); its share is evaluated again", type(error).__name__)
                self.kill_actors()
                self._start(_RESTART_S, _PATIENCE_S, at_least=1)
        super().evaluate(x)

    def _evaluate_batch(self, batch: SolutionBatch) -> None:
        mini_batch, before = self._mini_batch().to(self._evaluates_on), time.process_time()
        if self._objective is None:
            if self.is_remote:
                torch.set_num_threads(self.threads)
                keep_freed_memory()
            self._objective = self._make_objective()
        self._objective.restart()
        members = batch.access_values(keep_evals=True).to(self._evaluates_on)
        with torch.no_grad():
            losses = self._objective(mini_batch, members)
        self.spans = self._objective.spans
        batch.set_evals(losses.to(batch.device))
        self._cpu_seconds = time.process_time() - before

    def _mini_batch(self) -> MiniBatch:
        if self.batch is None:
            raise ValueError("batch: set MembersProblem.batch to a MiniBatch before evaluating")
        return self.batch if self.centre is None else replace(self.batch, centre=self.centre())

    @property
    def bounds_seconds(self) -> float:
        """Time in the objective of the last evaluation (of the slowest actor); waits for its end."""
        own = sum(span.seconds() for span in self.spans)
        return max((seconds for seconds, _ in self._actors_seconds), default=own)

    @property
    def actors_cpu_seconds(self) -> float:
        """CPU time that the actors spent on the last evaluation."""
        return sum(cpu for _, cpu in self._actors_seconds)

    def seed(self, seed: int) -> None:
        """Called by evotorch 0.6.1 when an actor starts, though its own Problem has only ``manual_seed``."""
        self.manual_seed(seed)

    # evotorch's hooks that keep actors in step with the main process: the mini-batch out, the time back.

    def _make_sync_data_for_actors(self) -> MiniBatch:
        return self._mini_batch().to("cpu")

    def _use_sync_data_from_main(self, received: MiniBatch) -> None:
        self.batch = received

    def _make_sync_data_for_main(self) -> tuple[float, float]:
        return self.bounds_seconds, self._cpu_seconds

    def _use_sync_data_from_actors(self, received: list[tuple[float, float]]) -> None:
        self._actors_seconds = received

    @property
    def _nonserialized_attribs(self) -> list[str]:
        return ["_objective", "batch", "centre", "spans"]


def from_actor(error: Exception) -> Exception:
    """What went wrong in an actor, without Ray's wrapping: the actor's own exception, or that it died."""
    import ray

    if not isinstance(error, ray.exceptions.RayError):
        return error
    cause = getattr(error, "cause", None)
    if isinstance(cause, GlskError | ValueError | OSError):
        return cause
    return GlskError(f"an actor failed: {str(cause or error).strip().splitlines()[-1].strip()}")
