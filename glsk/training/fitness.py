"""The robust loss as the phases of a run make it."""

from typing import Any

from glsk.module import BoundedModule
from glsk.objectives.base import MiniBatch, Span, check_data
from glsk.objectives.robust import Robust

__all__ = ["MiniBatch", "RobustLoss", "Span", "check_data"]


class RobustLoss(Robust):
    """A :class:`Robust` whose second argument is the method."""

    def __init__(self, bounded: BoundedModule, method: str, num_classes: int, **engine: Any) -> None:
        super().__init__(bounded, num_classes, method=method, **engine)
