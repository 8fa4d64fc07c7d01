"""One phase of a run: an objective, an estimator of its gradient, and schedules, each with settings of its own."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from glsk import estimators, objectives, settings

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_TAKEN = ("evaluation", "weights")
"""What metrics and files of a run are called already."""
_DECAYS = ("steps", "linear")
_PARTS = ("objective_settings", "estimator_settings")


@dataclass(frozen=True)
class Phase:
    """Settings of a phase; the defaults are the paper's of PGPE for MNIST at 0.1 (section 4, App. B.2).

    Attributes:
        objective: what is trained on, a name of :func:`glsk.objectives.names`.
        estimator: how its gradient is estimated, a name of :func:`glsk.estimators.names`.
        name: of the phase, in settings, logs and files; default the estimator's.
        epochs: length of the phase; 0 leaves it out.
        max_steps: stop after this many steps; 0 for no limit.
        batch_size: samples a step.
        lr: learning rate.
        decay: "steps" (by ``gamma`` at the ``milestones``) or "linear" (to zero over the second half).
        milestones: epochs after which the learning rate is multiplied by ``gamma``.
        gamma: see ``milestones``.
        eps: perturbation size to train with; None for the run's.
        anneal_epochs: epochs over which eps grows from 0.
        eval_every: evaluate every so many steps too, not only at the end; 0 for never.
        objective_settings: a ``Settings`` of the objective; None for its defaults.
        estimator_settings: a ``Settings`` of the estimator; None for its defaults.

    Raises:
        ValueError: naming the setting, if a value makes no sense, or the estimator cannot estimate that objective.
    """

    objective: str = "CROWN"
    estimator: str = "pgpe"
    name: str = ""
    epochs: int = 150
    max_steps: int = 0
    batch_size: int = 512
    lr: float = 3e-4
    decay: str = "steps"
    milestones: tuple[int, ...] = ()
    gamma: float = 0.4
    eps: float | None = None
    anneal_epochs: int = 0
    eval_every: int = 0
    objective_settings: Any = None
    estimator_settings: Any = None

    def __post_init__(self) -> None:
        settings.check(self)
        estimator = estimators.get(self.estimator)
        self._set("objective", objectives.canonical(self.objective))
        self._set("estimator", estimator.kind)
        self._set("name", self.name or estimator.kind)
        if not _NAME.fullmatch(self.name) or self.name in _TAKEN:
            raise ValueError(f"name: a phase is called by a-z, 0-9, _ and -, not {self.name!r:.50}")
        settings.check_known("decay", self.decay, _DECAYS)
        if self.decay != "steps" and self.milestones:
            raise ValueError(f"milestones: the decay {self.decay!r} has none")
        settings.check_positive(self, "batch_size")
        if estimator.differentiates and not objectives.is_differentiable(self.objective):
            raise ValueError(f"estimator: {estimator.kind} needs a gradient, {self.objective} has none")
        for part, kind in zip(_PARTS, (objectives.settings_type(self.objective), estimator.Settings), strict=True):
            if getattr(self, part) is None:
                self._set(part, kind())
            elif not isinstance(getattr(self, part), kind):
                raise ValueError(f"{part}: expected {kind.__name__}, got {getattr(self, part)!r:.50}")

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def kinds(self) -> dict[str, type]:
        """Every setting that this phase has -> the dataclass that it belongs to."""
        owners = (Phase, type(self.objective_settings), type(self.estimator_settings))
        return {name: owner for owner in owners for name in settings.names(owner) if name not in _PARTS}

    def changed(self, values: Mapping[str, Any]) -> "Phase":
        """A copy with other values of its own, its objective's and its estimator's settings.

        Another objective or estimator starts from its defaults; a phase called after its estimator still is.

        Raises:
            ValueError: naming a setting that neither the phase nor its objective nor its estimator has, or a bad value.
        """
        own = {name: values[name] for name in ("objective", "estimator") if name in values}
        start = self
        if "objective" in own and objectives.canonical(own["objective"]) != self.objective:
            own["objective_settings"] = None
        if "estimator" in own and estimators.get(own["estimator"]).kind != self.estimator:
            own["estimator_settings"] = None
            own["name"] = "" if self.name == self.estimator else self.name
        if own:
            start = dataclasses.replace(self, **own)
        kinds = start.kinds()
        parts: dict[type, dict[str, Any]] = {kind: {} for kind in kinds.values()}
        for name, value in values.items():
            if name not in kinds:
                raise ValueError(start.refusal(name))
            parts[kinds[name]][name] = value
        changes = parts.pop(Phase)
        for part in _PARTS:
            now = getattr(start, part)
            if more := parts.get(type(now)):
                changes[part] = dataclasses.replace(now, **more)
        return dataclasses.replace(start, **changes)

    def refusal(self, name: str) -> str:
        """Why this phase has no setting called ``name``."""
        of_objective, of_estimator = (", ".join(settings.names(type(getattr(self, part)))) or "none" for part in _PARTS)
        own = ", ".join(name for name in settings.names(Phase) if name not in _PARTS)
        return (
            f"setting: unknown {name!r} in phase {self.name}; known: {own}; of its objective {self.objective}: "
            f"{of_objective}; of its estimator {self.estimator}: {of_estimator}"
        )

    def to_dict(self) -> dict[str, Any]:
        """All settings as JSON can hold them: the objective and the estimator are objects, each with a name."""
        found = {name: value for name, value in settings.to_json(self).items() if name not in _PARTS}
        for part, name in zip(_PARTS, ("objective", "estimator"), strict=True):
            found[name] = {"name": found[name], **settings.to_json(getattr(self, part))}
        return found

    @classmethod
    def from_dict(cls, values: Any) -> "Phase":
        """The inverse of :meth:`to_dict`; settings left out have their defaults.

        An objective or estimator without settings may be just its name.

        Raises:
            ValueError: naming a setting.
        """
        if not isinstance(values, dict):
            raise ValueError(f"phases: expected an object a phase, got {values!r:.50}")
        flat, chosen = dict(values), {}
        for name in ("objective", "estimator"):
            if name not in flat:
                continue
            given = flat.pop(name)
            inside = dict(given) if isinstance(given, dict) else {"name": given}
            chosen[name] = inside.pop("name", None)
            if not isinstance(chosen[name], str):
                raise ValueError(f"{name}: expected a name, got {chosen[name]!r:.50}")
            estimator = name == "estimator"
            kind = estimators.get(chosen[name]).Settings if estimator else objectives.settings_type(chosen[name])
            for inner in inside:
                if inner not in settings.names(kind):
                    known = ", ".join(settings.names(kind)) or "none"
                    raise ValueError(f"{name}: {chosen[name]} has no setting {inner!r:.50}; known: {known}")
            chosen[f"{name}_settings"] = kind(**settings.from_json(inside))
        for name in flat:
            if name not in settings.names(cls) or name in _PARTS:
                raise ValueError(f"setting: unknown {name!r:.50} in a phase")
        return cls(**chosen, **settings.from_json(flat))
