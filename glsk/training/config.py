"""Every setting of a training run."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

import glsk
from glsk import estimators, precision, settings
from glsk.models import INITIALISATIONS
from glsk.training.phase import Phase

ENGINE = ("backend", "precision", "device", "threads", "actors", "ray_address", "checkpoint_every", "tensorboard")
"""Settings that say how a run is computed, not what; they may change when it is resumed."""


@dataclass(frozen=True)
class Config:
    """Settings of a run: what its phases share.

    Attributes:
        dataset: a name of :data:`glsk.data.NAMES` or the path of an ``.npz``.
        model: a name of :data:`glsk.models.MODELS`.
        eps: perturbation size in data units (images in [0, 1]): of evaluations, and of phases that name no other.
        seed: of the initial weights, the data order, the attacks and the population.
        initialisation: of fresh weights, a name of :data:`glsk.models.INITIALISATIONS`.
        init: a weights or checkpoint file to start from; empty for fresh weights.
        augment: random flips and crops.
        phases: what is done one after the other; names differ.
        eval_methods: relaxations to certify with after each phase.
        eval_limit: test images to evaluate on; 0 for all.
        eval_attack_steps: PGD steps of an evaluation.
        eval_attack_restarts: PGD restarts of an evaluation.
        backend: of the bounds, as in ``compute_bounds``.
        precision: of a GPU's products in training, a name of :data:`glsk.precision.TRAINING`; evaluations are always in
            one with the accuracy of float32.
        device: "cpu", "cuda", or one of several GPUs: "cuda:1".
        threads: CPU threads, which actors on this machine share; 0 leaves PyTorch's default. In a cluster, of each
            actor; 0 is one.
        actors: Ray actors that share a population; 0 or 1 evaluates in this process.
        ray_address: of a Ray cluster that the actors run in, such as "auto" or "host:6379"; empty for the one in the
            environment variable RAY_ADDRESS, if set, else a Ray of the run's own on this machine.
        checkpoint_every: steps between checkpoints.
        tensorboard: write TensorBoard scalars next to metrics.jsonl.

    Raises:
        ValueError: naming the setting, if a value makes no sense.
    """

    dataset: str = "mnist"
    model: str = "cnn3"
    eps: float = 0.1
    seed: int = 0
    initialisation: str = "kaiming-uniform"
    init: str = ""
    augment: bool = False
    phases: tuple[Phase, ...] = (Phase(milestones=(110, 130)),)
    eval_methods: tuple[str, ...] = ("CROWN",)
    eval_limit: int = 0
    eval_attack_steps: int = 40
    eval_attack_restarts: int = 3
    backend: str = "auto"
    precision: str = precision.TRAINING_DEFAULT
    device: str = "cpu"
    threads: int = 0
    actors: int = 0
    ray_address: str = ""
    checkpoint_every: int = 50
    tensorboard: bool = True

    def __post_init__(self) -> None:
        settings.check(self)
        settings.check_positive(self, "eval_attack_restarts", "checkpoint_every")
        settings.check_known("initialisation", self.initialisation, INITIALISATIONS)
        if self.seed >= 2**63:
            raise ValueError(f"seed: expected less than 2**63, got {self.seed}")
        if not isinstance(self.phases, tuple) or not all(isinstance(phase, Phase) for phase in self.phases):
            raise ValueError(f"phases: expected phases, got {self.phases!r:.50}")
        if not self.phases:
            raise ValueError("phases: a run has at least one")
        names = [phase.name for phase in self.phases]
        if repeated := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"phases: {repeated[0]!r} is the name of more than one; give each its own")
        if self.actors > 1 and not any(estimators.get(phase.estimator).has_actors for phase in self.phases):
            raise ValueError("actors: no phase of this run has a population to share")
        for method in self.eval_methods:
            glsk.canonical_method(method)
        glsk.backends.validate(self.backend)
        try:
            torch.device(self.device)
        except RuntimeError:
            raise ValueError(f"device: expected 'cpu', 'cuda' or 'cuda:<number>', got {self.device!r}") from None
        precision.validate_for_training(self.precision)

    @property
    def main(self) -> Phase:
        """The last phase: settings that name no phase, and that the run has not, are its."""
        return self.phases[-1]

    def radius(self, phase: Phase) -> float:
        """The perturbation size that a phase trains with, in data units."""
        return self.eps if phase.eps is None else phase.eps

    def override(self, **values: Any) -> "Config":
        """A copy with other values, each called as :meth:`read` says.

        Raises:
            ValueError: naming an unknown setting or a bad value.
        """
        own: dict[str, Any] = {}
        changes: dict[int, dict[str, Any]] = {}
        for name, value in values.items():
            index, inner = self._find(name)
            if index is None:
                own[inner] = value
            else:
                changes.setdefault(index, {})[inner] = value
        phases = list(own.pop("phases", self.phases))
        for index, more in changes.items():
            phases[index] = phases[index].changed(more)
        return dataclasses.replace(self, **own, phases=tuple(phases))

    def read(self, text: str) -> tuple[str, Any]:
        """``name=value`` as a setting's name and typed value; tuples are comma-separated.

        ``name`` is the run's setting, else one of its last phase, of that one's objective or estimator;
        ``phase.name`` is that of the phase called so.

        Raises:
            ValueError: without "=", for an unknown name, or a value that is not of the setting's type.
        """
        name, equals, value = text.partition("=")
        name = name.strip().replace("-", "_") if "." not in name else name.strip()
        if not equals:
            raise ValueError(f"setting: expected name=value, got {text!r}")
        index, inner = self._find(name)
        if index is None:
            if inner == "phases":
                raise ValueError("phases: give them in a file (--config)")
            return name, settings.read(type(self), inner, value)
        phase = self.phases[index]
        if inner not in phase.kinds():
            raise ValueError(phase.refusal(inner))
        return name, settings.read(phase.kinds()[inner], inner, value)

    def _find(self, name: str) -> tuple[int | None, str]:
        """Which phase a setting belongs to (None: the run), and its name there. Raises ValueError."""
        before, dot, inner = name.partition(".")
        if dot:
            names = [phase.name for phase in self.phases]
            if before not in names:
                raise ValueError(f"setting: {name!r} is of no phase of this run; they are {', '.join(names)}")
            return names.index(before), inner.replace("-", "_")
        if name in settings.names(type(self)):
            return None, name
        if name not in self.main.kinds():
            raise ValueError(f"{self.main.refusal(name)}; of the run: {', '.join(settings.names(type(self)))}")
        return len(self.phases) - 1, name

    def to_dict(self) -> dict[str, Any]:
        """All settings as JSON can hold them."""
        return {**settings.to_json(self), "phases": [phase.to_dict() for phase in self.phases]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Config":
        """The inverse of :meth:`to_dict`; settings left out have their defaults. Raises ValueError naming a setting."""
        given = settings.from_json(values)
        for name in given:
            if name not in settings.names(cls):
                raise ValueError(f"setting: unknown {name!r:.50}; known: {', '.join(settings.names(cls))}")
        if "phases" in given:
            if not isinstance(given["phases"], tuple):
                raise ValueError(f"phases: expected a list, got {given['phases']!r:.50}")
            given["phases"] = tuple(Phase.from_dict(phase) for phase in given["phases"])
        return cls(**given)


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """What :meth:`Config.to_dict` returned, a phase's settings called ``phase.name``."""
    found = {name: value for name, value in values.items() if name != "phases"}
    found["phases"] = [phase["name"] for phase in values["phases"]]
    for phase in values["phases"]:
        for name, value in phase.items():
            inside = value if isinstance(value, dict) else {name: value}
            found.update({f"{phase['name']}.{name if key == 'name' else key}": part for key, part in inside.items()})
    return found
