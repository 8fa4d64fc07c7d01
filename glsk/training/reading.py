"""What a step found, on its way from the device to the host."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from glsk.training.fitness import Span
from glsk.transfer import Mark, to_host


class Reading(Mapping[str, float]):
    """A mapping that waits for the device when it is first read, and for no more than its own step.

    Args:
        found: scalars on the device; their copies to the host are queued behind the work so far.
        known: what the host knows already.
        start: where the step's time begins; it ends here.
        bounds: the parts of it spent in the bounds.

    Attributes:
        end: the end of the step.
    """

    def __init__(self, found: dict[str, Tensor], known: dict[str, float], start: Mark, bounds: list[Span]) -> None:
        values = torch.stack(list(found.values()))
        self._names, self._host = tuple(found), to_host(values)
        self._known, self._start, self._bounds = known, start, bounds
        self._values: dict[str, float] | None = None
        self.end = Mark(values.device)

    def _read(self) -> dict[str, float]:
        if self._values is None:
            self.end.wait()
            times = {
                "step_s": self.end.seconds_since(self._start),
                "bounds_s": sum(span.seconds() for span in self._bounds),
            }
            self._values = dict(zip(self._names, self._host.tolist(), strict=True)) | self._known | times
        return self._values

    def __getitem__(self, name: str) -> float:
        return self._read()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())
