"""The tensors among an op's arguments, which are tensors, lists of tensors or constants. PyTorch's pytree knows every
container, and takes longer than a small kernel."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor


def tensors_of(arguments: Sequence[Any]) -> list[Tensor]:
    """The tensors, lists opened, in order."""
    return split(arguments)[0]


def split(arguments: Sequence[Any]) -> "tuple[list[Tensor], Nesting]":
    """The tensors, lists opened, in order; and what makes the arguments of them again."""
    tensors: list[Tensor] = []
    places: list[Any] = []
    for argument in arguments:
        if isinstance(argument, Tensor):
            places.append(_One(len(tensors)))
            tensors.append(argument)
        elif isinstance(argument, list | tuple) and argument and all(isinstance(item, Tensor) for item in argument):
            places.append(_Several(len(tensors), len(tensors) + len(argument)))
            tensors += argument
        else:
            places.append(argument)
    return tensors, Nesting(places)


@dataclass(frozen=True)
class _One:
    at: int


@dataclass(frozen=True)
class _Several:
    first: int
    end: int


@dataclass(frozen=True)
class Nesting:
    """How tensors stand among arguments."""

    places: list[Any]

    def join(self, tensors: Sequence[Tensor]) -> list[Any]:
        """The arguments, with these tensors in the places of those that were split off."""
        return [
            tensors[place.at]
            if isinstance(place, _One)
            else list(tensors[place.first : place.end])
            if isinstance(place, _Several)
            else place
            for place in self.places
        ]
