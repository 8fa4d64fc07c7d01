"""The stand-in for a GPU finds what would wait for one, and nothing else."""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.waits import WaitError, no_synchronisation, no_waits

WAITS: dict[str, Callable[[Tensor], object]] = {
    "a number": lambda x: float(x.sum()),
    "a condition": lambda x: bool((x > 0).any()),
    "a list": lambda x: x.tolist(),
    "a comparison": lambda x: torch.equal(x, x),
    "places": lambda x: x.nonzero(),
    "a mask": lambda x: x[x > 0],
    "a mask written to": lambda x: x.index_put_((x > 0,), x),
    "a copy to the host": lambda x: x.cpu(),
    "a queued copy to pageable memory": lambda x: torch.empty(3).copy_(x, non_blocking=True),
    "a copy from the host": lambda x: torch.zeros(3).to("meta"),
    "a queued copy from pageable memory": lambda x: torch.zeros(3).to("meta", non_blocking=True),
    "a copy from pinned memory that is waited for": lambda x: torch.zeros(3).pin_memory().to("meta"),
    "a number made a tensor": lambda x: torch.as_tensor(0.2, device="meta"),
    "a number in where": lambda x: torch.where(x > 0, x, 1.0),
    "an index on the host": lambda x: x[torch.tensor([0, 1])],
    "an operand on the host": lambda x: x + torch.zeros(3),
}

GOES_ON: dict[str, Callable[[Tensor], object]] = {
    "arithmetic": lambda x: x * 2.0 + torch.tensor(1.0),
    "numbers written": lambda x: x.__setitem__(slice(0, 2), float("nan")),
    "an index on the device": lambda x: x[torch.zeros(3, device="meta").long()],
    "a fill by a mask": lambda x: x.masked_fill(x > 0, 1.0),
    "a queued copy to pinned memory": lambda x: torch.empty(3, pin_memory=True).copy_(x, non_blocking=True),
    "a queued copy from pinned memory": lambda x: torch.zeros(3).pin_memory().to("meta", non_blocking=True),
    "a number on the host": lambda x: float(torch.ones(3).sum()),
}


@pytest.mark.parametrize("what", WAITS)
def test_found(what: str) -> None:
    x = torch.zeros(3, device="meta")
    with no_waits(), pytest.raises(WaitError):
        WAITS[what](x)


@pytest.mark.parametrize("what", GOES_ON)
def test_let_pass(what: str) -> None:
    x = torch.zeros(3, device="meta")
    with no_waits():
        GOES_ON[what](x)


def test_pytorchs_alarm_is_off_again_whatever_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    """It warns, once, after the mode has been set: as an error that would leave it on for every later test."""
    modes: list[str] = []

    def set_mode(mode: str) -> None:
        modes.append(mode)
        warnings.warn("a prototype", UserWarning, stacklevel=1)

    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", set_mode)
    with no_synchronisation():
        assert modes == ["error"]
    with pytest.raises(ZeroDivisionError), no_synchronisation():
        raise ZeroDivisionError
    assert modes == ["error", "default"] * 2
