"""What is found out of a property."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Status = Literal["unsat", "sat", "timeout", "unknown"]

STAGES = ("natural", "IBP", "CROWN", "attack", "alpha-CROWN", "branch and bound")
"""Cheapest first; a verdict names the one that reached it."""


@dataclass(frozen=True)
class Verdict:
    """Of one property.

    Attributes:
        status: "unsat": no input is unsafe, proved. "sat": ``counterexample`` is unsafe. "timeout": undecided when the
            time was up. "unknown": undecided, and more time would not help (bounds that are not finite, or subproblems
            of no free unit that rounding leaves open).
        stage: one of :data:`STAGES`, the last that ran.
        seconds: spent on this property; where several are decided at a time, its share of their batches.
        counterexample: float64 [*input_shape] in some box, unsafe by a float64 forward pass; None unless "sat".
        subproblems: how many were bounded by branch and bound.
    """

    status: Status
    stage: str
    seconds: float
    counterexample: Tensor | None = None
    subproblems: int = 0

    @property
    def decided(self) -> bool:
        return self.status in ("sat", "unsat")
