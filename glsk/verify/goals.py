"""Properties taken apart: one goal a box and unsafe set, all of one shape, so that they are a batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from glsk.verify.property import Halfspaces, Property


@dataclass(frozen=True)
class Goals:
    """To prove of goal g: everywhere in its box some row of A y - b is positive. Then its unsafe set is not met.

    Attributes:
        x_L, x_U: the boxes, float64 [I, *input_shape], those of a property side by side.
        owner: of every box the property it belongs to, int64 [I].
        box: of every goal its box, int64 [G], ascending.
        A, b: float64 [G, S, K] and [G, S]; a set of fewer rows repeats its first.
        point: of every box an input that is worth a look first, [I, *input_shape].
    """

    x_L: Tensor
    x_U: Tensor
    owner: Tensor
    box: Tensor
    A: Tensor
    b: Tensor
    point: Tensor

    @classmethod
    def of(cls, properties: Sequence[Property]) -> "Goals":
        """Of properties of one input shape and one K, in order."""
        rows = max(len(pair.b) for p in properties for pair in p.unsafe)
        lower: list[Tensor] = []
        upper, point, owner, box, A, b = [], [], [], [], [], []
        for number, found in enumerate(properties):
            for low, high in found.boxes:
                for pair in found.unsafe:
                    box.append(len(lower))
                    A.append(_padded(pair, rows).A)
                    b.append(_padded(pair, rows).b)
                owner.append(number)
                lower.append(low)
                upper.append(high)
                point.append(low + (high - low) / 2 if found.point is None else found.point)
        ends = torch.stack(lower), torch.stack(upper)
        first = torch.minimum(torch.maximum(torch.stack(point), ends[0]), ends[1])
        return cls(*ends, torch.tensor(owner), torch.tensor(box), torch.stack(A), torch.stack(b), first)

    @property
    def size(self) -> int:
        """G."""
        return len(self.box)

    @property
    def property(self) -> Tensor:
        """Of every goal the property it belongs to, int64 [G]."""
        return self.owner[self.box]

    def take(self, goals: Tensor) -> "Goals":
        """Some of the goals (indices [..], ascending), with all boxes."""
        return Goals(self.x_L, self.x_U, self.owner, self.box[goals], self.A[goals], self.b[goals], self.point)

    def compact(self) -> tuple["Goals", Tensor]:
        """Without boxes that no goal is left of; and which boxes are kept, ascending."""
        boxes, box = self.box.unique(return_inverse=True)
        ends = self.x_L[boxes], self.x_U[boxes], self.owner[boxes]
        return Goals(*ends, box, self.A, self.b, self.point[boxes]), boxes

    def met(self, outputs: Tensor, goals: Tensor) -> Tensor:
        """Which outputs y [N, K] lie in the unsafe set of their goal [N]: bool [N], in float64."""
        values = (self.A[goals] @ outputs.double().unsqueeze(-1)).squeeze(-1)
        return (values <= self.b[goals]).all(dim=1)


def _padded(pair: Halfspaces, rows: int) -> Halfspaces:
    index = torch.arange(rows)
    index[len(pair.b) :] = 0
    return Halfspaces(pair.A[index], pair.b[index])
