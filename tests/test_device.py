"""A device that is not here is refused before any work, with what to do."""

import types

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import glsk
from glsk import cli, device
from glsk.verify import evaluate


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "", "mps"])
def test_an_unknown_device_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"device: unknown .*; known: cpu, cuda, cuda:<number>"):
        device.check_device(name)


def test_a_device_that_is_here_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device.check_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(device, "why_no_cuda", lambda: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device.check_device("cuda") == torch.device("cuda")
    assert device.check_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ValueError, match="there is no 'cuda:2'; PyTorch sees 2"):
        device.check_device("cuda:2")


@pytest.mark.parametrize(
    ("built_for", "reason"),
    [(None, "built without CUDA; install a CUDA build"), ("13.0", "driver is new enough for CUDA 13.0")],
)
def test_a_missing_gpu_or_an_old_driver_is_named(
    monkeypatch: pytest.MonkeyPatch, built_for: str | None, reason: str
) -> None:
    monkeypatch.setattr(torch, "version", types.SimpleNamespace(cuda=built_for))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert reason in str(device.why_no_cuda())
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    with pytest.raises(ValueError, match=rf"device: 'cuda' cannot be used: .*{reason}.*; or use device 'cpu'"):
        evaluate(net, torch.rand(2, 1, 2, 2), torch.tensor([0, 1]), eps=0.1, num_classes=3, device="cuda")


def test_weights_on_another_device_than_the_input_are_refused() -> None:
    bounded = glsk.BoundedModule(nn.Linear(3, 2), (3,))
    elsewhere = torch.zeros(1, 8, device="meta")
    with pytest.raises(
        ValueError, match=r"is torch\.float32 on meta, the input is torch\.float32 on cpu; make them agree"
    ):
        bounded.compute_bounds(torch.rand(1, 3), eps=0.1, params=elsewhere)


def test_out_of_memory_is_one_line_on_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")

    monkeypatch.setattr("glsk.info.report", fail)
    result = CliRunner().invoke(cli.app, ["info"])
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "glsk: error: CUDA out of memory. Tried to allocate 2 GiB (smaller batches need less)"
    ]
