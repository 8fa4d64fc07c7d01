"""Every setting of a training run."""

import dataclasses
import sys
import typing
from dataclasses import dataclass
from typing import Any

import torch

import glsk
from glsk import precision

_ALGORITHMS = ("pgpe", "grad", "none")
_OPTIMIZERS = ("adam", "clipup")
_RANKINGS = ("none", "centered")

ENGINE = ("backend", "precision", "device", "threads", "actors", "checkpoint_every", "tensorboard")
"""Settings that say how a run is computed, not what; they may change when it is resumed."""


@dataclass(frozen=True)
class Config:
    """Settings of a run; the defaults are the paper's for MNIST at 0.1 (section 4, App. B.2).

    Attributes:
        dataset: a name of :data:`glsk.data.NAMES` or the path of an ``.npz``.
        model: a name of :data:`glsk.models.MODELS`.
        eps: perturbation size in data units (images in [0, 1]).
        method: the relaxation to train with.
        algorithm: "pgpe", "grad", or "none" (the warm start alone).
        seed: of the initial weights, the data order, the attacks and the population.
        init: a weights or checkpoint file to start from; empty for fresh weights.
        warm_epochs: epochs of PGD adversarial training before; 0 for none.
        warm_batch_size: of that phase.
        warm_lr: of that phase (Adam).
        warm_attack_steps: PGD steps of that phase.
        warm_anneal_epochs: epochs over which eps grows from 0 in that phase.
        epochs: epochs of ``algorithm``.
        max_steps: stop ``algorithm`` after this many steps; 0 for no limit.
        batch_size: samples a step.
        lr: learning rate.
        milestones: epochs after which the learning rate is multiplied by ``gamma``.
        gamma: see ``milestones``.
        anneal_epochs: epochs over which eps grows from 0.
        augment: random flips and crops.
        popsize: P, even (members come in antithetic pairs).
        stdev_init: initial standard deviation of the members, sigma_PGPE.
        stdev_lr: learning rate of the standard deviation.
        optimizer: of the centre, "adam" or "clipup".
        ranking: "none" (raw fitness, as in the paper's formula) or "centered".
        grad_clip: largest gradient norm of ``grad``; 0 for no clipping.
        eval_methods: relaxations to certify with after each phase.
        eval_limit: test images to evaluate on; 0 for all.
        eval_every: evaluate every so many steps of ``algorithm`` too, and record what phases end with; 0 for never.
        attack_steps: PGD steps of an evaluation.
        attack_restarts: PGD restarts of an evaluation.
        backend: of the bounds, as in ``compute_bounds``.
        precision: of a GPU's products in training, a name of :data:`glsk.precision.TRAINING`; evaluations are always in
            one with the accuracy of float32.
        device: "cpu", "cuda", or one of several GPUs: "cuda:1".
        threads: CPU threads; 0 leaves PyTorch's default.
        actors: Ray actors that share a population; 0 or 1 evaluates in this process.
        checkpoint_every: steps between checkpoints.
        tensorboard: write TensorBoard scalars next to metrics.jsonl.

    Raises:
        ValueError: naming the setting, if a value makes no sense.
    """

    dataset: str = "mnist"
    model: str = "cnn3"
    eps: float = 0.1
    method: str = "CROWN"
    algorithm: str = "pgpe"
    seed: int = 0
    init: str = ""
    warm_epochs: int = 20
    warm_batch_size: int = 256
    warm_lr: float = 2e-3
    warm_attack_steps: int = 8
    warm_anneal_epochs: int = 5
    epochs: int = 150
    max_steps: int = 0
    batch_size: int = 512
    lr: float = 3e-4
    milestones: tuple[int, ...] = (110, 130)
    gamma: float = 0.4
    anneal_epochs: int = 0
    augment: bool = False
    popsize: int = 256
    stdev_init: float = 1e-3
    stdev_lr: float = 0.1
    optimizer: str = "adam"
    ranking: str = "none"
    grad_clip: float = 10.0
    eval_methods: tuple[str, ...] = ("CROWN",)
    eval_limit: int = 0
    eval_every: int = 0
    attack_steps: int = 40
    attack_restarts: int = 3
    backend: str = "auto"
    precision: str = precision.TRAINING_DEFAULT
    device: str = "cpu"
    threads: int = 0
    actors: int = 0
    checkpoint_every: int = 50
    tensorboard: bool = True

    def __post_init__(self) -> None:
        for name in ("algorithm", "optimizer", "ranking"):
            known = {"algorithm": _ALGORITHMS, "optimizer": _OPTIMIZERS, "ranking": _RANKINGS}[name]
            if getattr(self, name) not in known:
                raise ValueError(f"{name}: unknown {getattr(self, name)!r}; known: {', '.join(known)}")
        types = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            _check_type(field.name, getattr(self, field.name), types[field.name])
            self._check_number(field.name, getattr(self, field.name))
        if self.seed >= 2**63:
            raise ValueError(f"seed: expected less than 2**63, got {self.seed}")
        for name in ("warm_batch_size", "batch_size", "attack_restarts", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if self.popsize < 2 or self.popsize % 2:
            raise ValueError(f"popsize: expected an even number, at least 2 (pairs), got {self.popsize}")
        if self.stdev_init <= 0:
            raise ValueError(f"stdev_init: expected a positive number, got {self.stdev_init}")
        for name in ("method", *(["eval_methods"] if self.eval_methods else [])):
            value = getattr(self, name)
            for method in [value] if isinstance(value, str) else value:
                glsk.canonical_method(method)
        glsk.backends.validate(self.backend)
        try:
            torch.device(self.device)
        except RuntimeError:
            raise ValueError(f"device: expected 'cpu', 'cuda' or 'cuda:<number>', got {self.device!r}") from None
        precision.validate_for_training(self.precision)

    @staticmethod
    def _check_number(name: str, value: object) -> None:
        if isinstance(value, int | float) and not 0 <= value <= sys.float_info.max:
            raise ValueError(f"{name}: expected a finite number, at least 0, got {value}")

    def limited(self, steps: int) -> int:
        """``steps``, but at most ``max_steps`` if that is set."""
        return min(steps, self.max_steps) if self.max_steps else steps

    def override(self, **values: Any) -> "Config":
        """A copy with other values. Raises ValueError naming an unknown setting."""
        for name in values:
            if name not in self.__dataclass_fields__:
                raise ValueError(f"setting: unknown {name!r}; known: {', '.join(self.__dataclass_fields__)}")
        return dataclasses.replace(self, **values)

    def to_dict(self) -> dict[str, Any]:
        """All settings as JSON can hold them."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Config":
        """The inverse of :meth:`to_dict`; settings left out have their defaults. Raises ValueError naming a setting."""
        given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls().override(**given)


def _check_type(name: str, value: object, kind: Any) -> None:
    """Raises ValueError naming the setting. An integer is a float, too; a bool is neither."""
    if typing.get_origin(kind) is tuple:
        item = typing.get_args(kind)[0]
        right = isinstance(value, tuple) and all(isinstance(part, item) and type(part) is not bool for part in value)
        expected = f"a tuple of {item.__name__}"
    else:
        right = isinstance(value, (int, float) if kind is float else kind) and (kind is bool or type(value) is not bool)
        expected = kind.__name__
    if not right:
        raise ValueError(f"{name}: expected {expected}, got {value!r:.50}")


def parse_setting(text: str) -> tuple[str, Any]:
    """``name=value`` as a setting's name and typed value; tuples are comma-separated.

    Raises:
        ValueError: without "=", for an unknown name, or a value that is not of the setting's type.
    """
    name, equals, value = text.partition("=")
    name = name.strip().replace("-", "_")
    types = typing.get_type_hints(Config)
    if not equals:
        raise ValueError(f"setting: expected name=value, got {text!r}")
    if name not in types:
        raise ValueError(f"setting: unknown {name!r}; known: {', '.join(types)}")
    try:
        return name, _parse(types[name], value.strip())
    except ValueError as error:
        raise ValueError(f"{name}: cannot read {value!r} ({error})") from error


def _parse(kind: Any, value: str) -> Any:
    if typing.get_origin(kind) is tuple:
        return tuple(_parse(typing.get_args(kind)[0], part.strip()) for part in value.split(",") if part.strip())
    if kind is bool:
        if value.lower() not in ("true", "false", "1", "0", "yes", "no"):
            raise ValueError("expected true or false")
        return value.lower() in ("true", "1", "yes")
    if kind is float and "/" in value:  # eps is customarily written 2/255
        numerator, denominator = value.split("/", 1)
        return float(numerator) / float(denominator)
    return kind(value)
