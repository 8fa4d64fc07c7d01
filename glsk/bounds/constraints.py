"""What a caller knows of the hidden units beside the network and the box: bounds, lines and splits of its own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

Interval = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Constraints:
    """By the number of an affine layer that an activation follows.

    Attributes:
        intermediate: sound bounds of its outputs, [P or 1, B, n] each.
        replace: whether these stand for the layer's own, which are then not computed, or are intersected with them.
        lines: its activation's lines, [P or 1, B or 1, R or 1, 4, n]; with R = 1 its own bounds are not computed.
        splits: [1, B, n] of -1 (inactive: its input is at most 0), +1 (active: at least 0) and 0 (free).
    """

    intermediate: Mapping[int, Interval] = field(default_factory=dict)
    replace: bool = False
    lines: Mapping[int, Tensor] = field(default_factory=dict)
    splits: Mapping[int, Tensor] = field(default_factory=dict)

    def part(self, members: slice, samples: slice) -> "Constraints":
        """Those of some members and samples."""

        def cut(tensor: Tensor) -> Tensor:
            tensor = tensor if tensor.shape[0] == 1 else tensor[members]
            return tensor if tensor.shape[1] == 1 else tensor[:, samples]

        return Constraints(
            {k: (cut(lower), cut(upper)) for k, (lower, upper) in self.intermediate.items()},
            self.replace,
            {k: cut(lines) for k, lines in self.lines.items()},
            {k: cut(split) for k, split in self.splits.items()},
        )

    def bounds(self, k: int, members: int, compute: Callable[[], Interval]) -> Interval:
        """Layer k's bounds [P, B, n]: those that ``compute`` gives, or the caller's, then cut by the splits.

        Where what is known contradicts itself, no input of the box is left: the subproblem is empty, and anything is
        true of it. Ends that cross change places, and a split that its unit cannot meet leaves [0, 0]; so bounds of an
        empty subproblem are finite, and nothing tells them from others.
        """
        given = self.intermediate.get(k)
        if given is not None and self.replace:
            lower, upper = (end.expand(members, -1, -1) for end in given)
        else:
            lower, upper = compute()
            if given is not None:
                lower, upper = torch.maximum(lower, given[0]), torch.minimum(upper, given[1])
                lower, upper = torch.minimum(lower, upper), torch.maximum(lower, upper)
        split = self.splits.get(k)
        if split is not None:
            lower = torch.where(split > 0, lower.clamp(min=0), torch.where(split < 0, lower.clamp(max=0), lower))
            upper = torch.where(split < 0, upper.clamp(max=0), torch.where(split > 0, upper.clamp(min=0), upper))
        return lower, upper

    def needs_bounds(self, k: int) -> bool:
        """Whether anything reads layer k's bounds."""
        return k not in self.lines or self.lines[k].shape[2] > 1
