"""Relaxations by name. A relaxation is one file of this package with one decorated generator."""

from collections.abc import Callable, Iterator

from glsk.bounds.query import Bounds, Query

Relaxation = Callable[[Query], Iterator[Bounds]]
"""Yields the bounds of the outputs of layers 0..K-1 in order, then those of the specification.

A layer that no ReLU follows may yield anything: nobody reads it. What comes last is computed only when asked for.
"""

_RELAXATIONS: dict[str, Relaxation] = {}
_SPELLINGS: dict[str, str] = {}
_LINEAR: set[str] = set()
_WITHOUT_GRADIENT: set[str] = set()


def relaxation(
    name: str, *aliases: str, linear: bool = False, differentiable: bool = True
) -> Callable[[Relaxation], Relaxation]:
    """Decorator: make a relaxation known by its name and aliases, in any case.

    ``linear``: its bounds of the specification are those of linear functions of the input, by lines.
    """

    def register(function: Relaxation) -> Relaxation:
        _RELAXATIONS[name] = function
        _LINEAR.update({name} if linear else ())
        _WITHOUT_GRADIENT.update(() if differentiable else {name})
        _SPELLINGS.update({spelling.upper(): name for spelling in (name, *aliases)})
        return function

    return register


def methods() -> tuple[str, ...]:
    """The canonical names."""
    return tuple(sorted(_RELAXATIONS))


def canonical_method(name: str) -> str:
    """The canonical name of a method in any accepted spelling ("deeppoly" is "CROWN").

    Raises:
        TypeError, ValueError: not a string; not a method.
    """
    if not isinstance(name, str):
        raise TypeError(f"method: expected a string, got {type(name).__name__}")
    try:
        return _SPELLINGS[name.upper()]
    except KeyError:
        raise ValueError(f"method: unknown {name!r}; known: {', '.join(methods())} (also DeepPoly = CROWN)") from None


def aliases(name: str) -> tuple[str, ...]:
    """Every accepted spelling of a method, in capitals."""
    return tuple(spelling for spelling, one in _SPELLINGS.items() if one == canonical_method(name))


def is_differentiable(name: str) -> bool:
    """Whether a method's bounds have a gradient."""
    return canonical_method(name) not in _WITHOUT_GRADIENT


def is_linear(name: str) -> bool:
    """Whether a method's bounds of the specification are those of linear functions of the input, by lines."""
    return canonical_method(name) in _LINEAR


def get(name: str) -> Relaxation:
    """The relaxation of that name, in any accepted spelling."""
    return _RELAXATIONS[canonical_method(name)]
