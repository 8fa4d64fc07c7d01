"""Objectives by name. An objective is one file of this package with one decorated class."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

import glsk
from glsk.objectives.base import Objective

_Class = TypeVar("_Class", bound=type[Objective])


@dataclass(frozen=True)
class _Entry:
    """A class, and what of its arguments the name alone says."""

    kind: type[Objective]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    differentiable: bool = True


_OBJECTIVES: dict[str, _Entry] = {}
_SPELLINGS: dict[str, str] = {}


def objective(name: str, *aliases: str) -> Callable[[_Class], _Class]:
    """Decorator: make an objective known by its name and aliases, in any case."""

    def register(kind: _Class) -> _Class:
        kind.name = name
        add(name, kind, *aliases)
        return kind

    return register


def add(
    name: str, kind: type[Objective], *aliases: str, fixed: Mapping[str, Any] | None = None, differentiable: bool = True
) -> None:
    """Make ``kind``, built with the arguments ``fixed``, known by a name and aliases."""
    _OBJECTIVES[name] = _Entry(kind, fixed or {}, differentiable)
    _SPELLINGS.update({spelling.upper(): name for spelling in (name, *aliases)})


def names() -> tuple[str, ...]:
    """The canonical names."""
    return tuple(sorted(_OBJECTIVES))


def canonical(name: str) -> str:
    """The canonical name of an objective in any accepted spelling ("deeppoly" is "CROWN", "adversarial" is "PGD").

    Raises:
        TypeError, ValueError: not a string; not an objective.
    """
    if not isinstance(name, str):
        raise TypeError(f"objective: expected a string, got {type(name).__name__}")
    if name.upper() not in _SPELLINGS:
        raise ValueError(f"objective: unknown {name!r:.50}; known: {', '.join(names())} (also DeepPoly = CROWN)")
    return _SPELLINGS[name.upper()]


def settings_type(name: str) -> type:
    """The frozen dataclass of an objective's own settings. Raises as :func:`canonical` does."""
    return _OBJECTIVES[canonical(name)].kind.Settings


def is_differentiable(name: str) -> bool:
    """Whether an objective has a gradient. Raises as :func:`canonical` does."""
    return _OBJECTIVES[canonical(name)].differentiable


def create(
    name: str,
    bounded: "glsk.BoundedModule",
    num_classes: int,
    settings: Mapping[str, Any] | None = None,
    **engine: Any,
) -> Objective:
    """An objective of a network.

    Args:
        name: one of :func:`names`, or an alias, in any case.
        bounded: the network.
        num_classes: K.
        settings: the objective's own settings by name; those left out have their defaults.
        **engine: ``backend``, ``clip``, ``checked``, ``precision`` and ``seed``, as :class:`Objective` explains them.

    Raises:
        TypeError, ValueError: an unknown name or setting, or a value that makes no sense, naming it.
    """
    entry = _OBJECTIVES[canonical(name)]
    known = [one.name for one in fields(entry.kind.Settings)]
    for given in settings or {}:
        if given not in known:
            raise ValueError(f"{given}: {canonical(name)} has no such setting; it has: {', '.join(known) or 'none'}")
    return entry.kind(bounded, num_classes, entry.kind.Settings(**(settings or {})), **entry.fixed, **engine)
