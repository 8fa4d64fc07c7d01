"""What a step found, on its way from the device to the host."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from glsk.objectives.base import Span
from glsk.transfer import Mark, to_host


class Reading(Mapping[str, float]):
    """A mapping that waits for the device when it is first read, and for no more than its own step.

    Args:
        found: what there is to tell; scalars on the device are copied to the host behind the work queued so far.
        start: where the step's time begins; it ends here.
        bounds: the parts of it spent in the bounds.

    Attributes:
        end: the end of the step.
    """

    def __init__(self, found: Mapping[str, Tensor | float], start: Mark, bounds: list[Span]) -> None:
        self._late = [name for name, value in found.items() if isinstance(value, Tensor)]
        values = torch.stack([value for value in found.values() if isinstance(value, Tensor)])
        self._found, self._host = found, to_host(values)
        self._start, self._bounds = start, bounds
        self._values: dict[str, float] | None = None
        self.end = Mark(values.device)

    def _read(self) -> dict[str, float]:
        if self._values is None:
            self.end.wait()
            late = dict(zip(self._late, self._host.tolist(), strict=True))
            self._values = {
                **{name: value if not isinstance(value, Tensor) else late[name] for name, value in self._found.items()},
                "step_s": self.end.seconds_since(self._start),
                "bounds_s": sum(span.seconds() for span in self._bounds),
            }
        return self._values

    def __getitem__(self, name: str) -> float:
        return self._read()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())
