"""Copies between host and device that neither waits for, and marks that say when they are done."""

import time

import torch
from torch import Tensor


def runs_behind(device: torch.device | str) -> bool:
    """Whether the device may still be at work when a call has returned, so that reading a value waits for it."""
    return torch.device(device).type == "cuda"


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """A host tensor on ``device``; to a GPU by way of page-locked memory, or the host would wait for the copy."""
    if not runs_behind(device):
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def to_host(tensor: Tensor) -> Tensor:
    """A copy on the host; from a GPU its values are there once a :class:`Mark` made after this call has passed."""
    if not runs_behind(tensor.device):
        return tensor.to("cpu", copy=True)
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)


class Mark:
    """A point in the work of a device's current stream, where it is reached later than it is made; else in time.

    Args:
        device: the device; only a GPU runs on after a call has returned.
    """

    def __init__(self, device: torch.device | str) -> None:
        self._time, self._event = time.perf_counter(), None  # type: tuple[float, torch.cuda.Event | None]
        if runs_behind(device):
            self._event = torch.cuda.Event(enable_timing=True)
            self._event.record(torch.cuda.current_stream(device))

    def wait(self) -> None:
        """Return when the device has got here; work queued behind the mark runs on."""
        if self._event is not None:
            self._event.synchronize()

    def seconds_since(self, earlier: "Mark") -> float:
        """Seconds from a mark of the same device to this one; waits for both."""
        self.wait()
        if self._event is None or earlier._event is None:
            return self._time - earlier._time
        return earlier._event.elapsed_time(self._event) / 1e3
