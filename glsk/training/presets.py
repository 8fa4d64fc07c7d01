"""The paper's settings by name, and a small one that ends in minutes on a laptop.

A name is ``<data>[-<model>][-<objective>][-<estimator>]``, by default cnn3, deeppoly and pgpe, such as ``mnist-0.1``,
``cifar10-2-255-cnn5-sabr-grad`` or ``quick-ibp-pgpe-cv``. What is trained on and how its gradient is estimated decide
the phases and their schedules: section 4 and App. B.1, B.2 of the paper.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from glsk import estimators, objectives
from glsk.models import MODELS
from glsk.training.config import Config
from glsk.training.phase import Phase

QUICK = "quick"


@dataclass(frozen=True)
class _Data:
    """What a data set and a perturbation size decide.

    Attributes:
        run: settings of the run.
        batch_size: samples a step.
        anneal: whether PGPE anneals eps.
        warm: settings of the PGD warm start, which the paper leaves open.
    """

    run: dict[str, Any]
    batch_size: int
    anneal: bool = False
    warm: dict[str, Any] = field(default_factory=dict)


_MNIST = {"batch_size": 256, "epochs": 20, "lr": 2e-3, "anneal_epochs": 5}
_CIFAR = {"batch_size": 128, "epochs": 80, "lr": 1e-3, "anneal_epochs": 5}
_DATA = {
    "mnist-0.1": _Data({"dataset": "mnist", "eps": 0.1}, 512, warm=_MNIST),
    "mnist-0.3": _Data({"dataset": "mnist", "eps": 0.3}, 512, True, {**_MNIST, "epochs": 40, "anneal_epochs": 20}),
    "cifar10-2-255": _Data({"dataset": "cifar10", "eps": 2 / 255, "augment": True}, 128, warm=_CIFAR),
    "cifar10-8-255": _Data(
        {"dataset": "cifar10", "eps": 8 / 255, "augment": True}, 128, True, {**_CIFAR, "anneal_epochs": 20}
    ),
    # Minutes on two cores, on images that need no download. Small batches: all members share a batch, so its noise
    # costs less than a smaller population would.
    QUICK: _Data(
        {
            "dataset": "mnist-5k",
            "eps": 0.1,
            "eval_attack_steps": 20,
            "eval_attack_restarts": 2,
            "eval_methods": ("IBP", "CROWN"),
        },
        32,
        warm={**_MNIST, "batch_size": 100, "attack_steps": 5},
    ),
}
_DEEPPOLY, _PGPE = "deeppoly", "pgpe"


def preset(name: str, objective: str | None = None, estimator: str | None = None) -> Config:
    """The settings called ``name``, with another objective or estimator if one is given.

    Raises:
        ValueError: saying which there are.
    """
    data = next((key for key in _DATA if name == key or name.startswith(f"{key}-")), None)
    if data is None:
        raise ValueError(_unknown(name))
    rest = name[len(data) + 1 :]
    model, rest = _first(rest, tuple(MODELS))
    named, rest = _first(rest, _slugs())
    way, rest = _first(rest, estimators.names())
    if rest or name.endswith("-"):
        raise ValueError(_unknown(name))
    return _recipe(data, model or "cnn3", objective or named or _DEEPPOLY, estimator or way)


def names() -> list[str]:
    """Every preset of the paper's kind, in full."""
    ways = (f"{slug}-{way}" for slug in _slugs() for way in estimators.names())
    systems = [f"{data}-{model}" for data in _DATA if data != QUICK for model in MODELS]
    known = [f"{system}-{way}" for way in ways for system in systems if _possible(*_split(way))]
    return [QUICK, *known]


def _recipe(data: str, model: str, objective: str, estimator: str | None) -> Config:
    chosen = _DATA[data]
    adversarial = objectives.canonical(objective) == "PGD"
    estimator = estimator or ("grad" if adversarial else _PGPE)
    warm = Phase(name="warm-start", objective="PGD", estimator="grad", decay="linear", milestones=())
    phases = [warm.changed({**chosen.warm, "grad_clip": 0.0})]
    if not (adversarial and estimator == "grad"):
        main = Phase(objective=objective, estimator=estimator, batch_size=chosen.batch_size)
        if data == QUICK:
            phases.append(main.changed({"epochs": 5, "milestones": (3, 4), "lr": 1e-3}))
        elif estimator == "grad":
            phases = [dataclasses.replace(main, **_gradient(chosen.run["dataset"] == "mnist"))]
        else:
            smoothed = {"epochs": 150, "milestones": (110, 130), "anneal_epochs": 50 if chosen.anneal else 0}
            phases.append(main.changed(smoothed))
    return Config(model=model, phases=tuple(phases), **chosen.run)


def _gradient(mnist: bool) -> dict[str, Any]:
    """App. B.1: no warm start; decays by 0.2, and eps anneals in every setting."""
    return {
        "lr": 5e-5,
        "gamma": 0.2,
        "epochs": 70 if mnist else 160,
        "anneal_epochs": 20 if mnist else 80,
        "milestones": (50, 60) if mnist else (120, 140),
    }


def _slugs() -> tuple[str, ...]:
    """The objectives as presets spell them."""
    return (_DEEPPOLY, *(name.lower() for name in objectives.names() if name != "CROWN"))


def _first(text: str, known: tuple[str, ...]) -> tuple[str | None, str]:
    """The longest known word that ``text`` begins with, and the rest."""
    found = [word for word in known if text == word or text.startswith(f"{word}-")]
    if not found:
        return None, text
    word = max(found, key=len)
    return word, text[len(word) + 1 :]


def _split(way: str) -> tuple[str, str]:
    slug, rest = _first(way, _slugs())
    return slug or "", rest


def _possible(slug: str, estimator: str) -> bool:
    return objectives.is_differentiable(slug) or not estimators.get(estimator).differentiates


def _unknown(name: str) -> str:
    return (
        f"preset: unknown {name!r:.100}; known: <{'|'.join(_DATA)}>, then any of -<{'|'.join(MODELS)}>, "
        f"-<{'|'.join(_slugs())}> and -<{'|'.join(estimators.names())}>, in this order"
    )
