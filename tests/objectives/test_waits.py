"""No unchecked objective waits for its device."""

import pytest
import torch

import glsk
from glsk import backends, models, objectives, transfer
from glsk.objectives import MiniBatch, create
from tests.waits import WaitError, no_waits

SHAPE = (3, 8, 8)


@pytest.fixture
def gpu(monkeypatch):
    """The meta device as if it were a GPU: it has no values, so whoever needs one is caught."""

    class Event:
        def __init__(self, enable_timing):
            pass

        def record(self, stream):
            pass

    monkeypatch.setattr(transfer, "runs_behind", lambda device: torch.device(device).type == "meta")
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    monkeypatch.setattr(backends, "resolve", lambda *args: "reference")


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("name", objectives.names())
def test_nothing_is_read(gpu, name, shared):
    settings = {"shared_attack": shared} if hasattr(objectives.settings_type(name), "shared_attack") else {}
    net = models.build("cnn3", SHAPE, 4, mean=(0.1, 0.2, 0.3), std=(1, 2, 3)).to("meta")
    bounded = glsk.BoundedModule(net, SHAPE)
    members = torch.empty(2, bounded.num_parameters, device="meta")
    batch = MiniBatch(torch.empty(3, *SHAPE, device="meta"), torch.empty(3, dtype=torch.int64, device="meta"), 0.1)
    checked, unchecked = (create(name, bounded, 4, settings, checked=on) for on in (True, False))
    with torch.no_grad(), no_waits():
        assert unchecked(batch, members).shape == (2,)
        with pytest.raises((WaitError, ValueError), match=r"reads a value|on the meta device holds no values"):
            checked(batch, members)
