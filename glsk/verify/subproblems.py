"""Open subproblems of branch and bound on hidden units."""

from dataclasses import dataclass

from torch import Tensor

from glsk.verify.stack import Batch


@dataclass(frozen=True)
class Subproblems(Batch):
    """N of them, bounded and still open.

    Attributes:
        goal: which goal, int64 [N].
        splits: int8 [N, W], a column a unit that the box leaves unstable: +1 active, -1 inactive, 0 free.
        duals: multipliers and slopes that bounded it, float16 [N, S, W]: where its children's ascent starts.
        units: columns to split, best first, int32 [N, k]; -1 where there is none.
        margin: how far the best row's bound is from proving it, float32 [N].
    """

    goal: Tensor
    splits: Tensor
    duals: Tensor
    units: Tensor
    margin: Tensor
