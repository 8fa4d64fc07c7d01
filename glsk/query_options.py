"""How a call is computed, beside what is bounded: one frozen value, checked where it is made."""

from dataclasses import dataclass

from glsk import backends
from glsk.arguments import flag, number, whole_number


@dataclass(frozen=True)
class QueryOptions:
    """The options that ``BoundedModule``'s calls share; ``compute_bounds`` explains each.

    Raises:
        TypeError, ValueError: naming the first option that is off.
    """

    backend: str = "auto"
    prune: bool = True
    bound_upper: bool = True
    memory_limit: int = 1 << 30
    check_finite: bool = True
    iterations: int = 20
    lr: float = 0.1

    def __post_init__(self) -> None:
        plain = {
            "backend": backends.validate(self.backend),
            "memory_limit": _bytes(self.memory_limit),
            "iterations": whole_number("iterations", self.iterations, 1),
            "lr": _rate(self.lr),
            **{name: flag(name, getattr(self, name)) for name in ("prune", "bound_upper", "check_finite")},
        }
        for name, value in plain.items():  # NumPy scalars become Python's
            object.__setattr__(self, name, value)


def _bytes(limit: object) -> int:
    found = whole_number("memory_limit", limit, -(1 << 63), "whole number of bytes")
    if found < 1:
        raise ValueError(f"memory_limit: expected a positive number of bytes, got {found}")
    return found


def _rate(lr: object) -> float:
    found = number("lr", lr)
    if found <= 0:
        raise ValueError(f"lr: expected a positive number, got {found}")
    return found
