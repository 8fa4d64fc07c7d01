"""glsk verify: verdicts, counterexamples and exit codes."""

import json
import re

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from glsk.cli import app
from glsk.cli import verify as command
from glsk.formats import format_vnnlib, onnx_bytes, read_onnx
from glsk.models import build
from glsk.training.weights import Description, save_weights
from glsk.verify import Property, Verdict, margin_property


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """y = (relu(x_0) + relu(-x_0), x_1): the first output is |x_0|."""
    folder = tmp_path_factory.mktemp("verify")
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]))
        net[0].bias.copy_(torch.tensor([0.0, 0.0, 8.0]))
        net[2].weight.copy_(torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
        net[2].bias.copy_(torch.tensor([0.0, -8.0]))
    (folder / "net.onnx").write_bytes(onnx_bytes(net, (2,)))
    return folder


def unsafe(low, high, largest):
    """Unsafe if |x_0| >= largest for x_0 in [low, high], x_1 in [0, 1]."""
    ends = torch.tensor([[low, 0.0], [high, 1.0]])
    return Property(((ends[0], ends[1]),), ((torch.tensor([[-1.0, 0.0]]), torch.tensor([-float(largest)])),))


def run(here, properties, *options):
    (here / "p.vnnlib").write_text(properties if isinstance(properties, str) else format_vnnlib(properties))
    arguments = ["verify", here / "net.onnx", here / "p.vnnlib", *options]
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)


def test_safe_is_unsat_and_0(here):
    result = run(here, unsafe(-2, 3, 3.5))
    assert (result.exit_code, result.stdout) == (0, "unsat\n")


def test_unsafe_is_sat_and_1_with_a_counterexample(here):
    found = unsafe(-2, 3, 2.5)
    result = run(here, found)
    assert result.exit_code == 1
    first, rest = result.stdout.split("\n", 1)
    assert first == "sat"
    assert re.fullmatch(r"\((\([XY]_\d \S+\)\n?)+\)\n", rest)
    values = dict(re.findall(r"\(([XY]_\d) ([^\s)]+)\)", rest))
    x = torch.tensor([[float(values[f"X_{i}"]) for i in range(2)]], dtype=torch.float64)
    y = torch.tensor([[float(values[f"Y_{j}"]) for j in range(2)]], dtype=torch.float64)
    assert found.contains(x).all()
    assert found.violated(y).all()
    torch.testing.assert_close(read_onnx(here / "net.onnx").network(x), y)


def test_json_holds_the_same(here):
    values = json.loads(run(here, unsafe(-2, 3, 2.5), "--json").stdout)
    assert values["result"] == "sat"
    assert len(values["x"]) == len(values["y"]) == 2
    assert values["seconds"] > 0
    values = json.loads(run(here, unsafe(-2, 3, 3.5), "--json").stdout)
    assert values.keys() == {"result", "seconds", "stage"}


def test_it_runs_on_the_cpu_and_nowhere_else(here, monkeypatch):
    assert run(here, unsafe(-2, 3, 3.5), "--device", "cpu").exit_code == 0
    assert "device: unknown 'tpu'" in run(here, unsafe(-2, 3, 3.5), "--device", "tpu").stderr
    monkeypatch.setattr("glsk.device.check_device", torch.device)  # as if there were a GPU
    refused = run(here, unsafe(-2, 3, 3.5), "--device", "cuda:1")
    assert refused.exit_code == 2
    assert "device: verification is computed in float64 on the CPU, not on 'cuda:1'" in refused.stderr


def test_one_property_of_several_that_is_violated_is_enough(here):
    safe, other = unsafe(-1, 1, 2), unsafe(2, 3, 2.5)
    assert run(here, [safe, other]).exit_code == 1
    assert run(here, [other, safe]).exit_code == 1
    assert run(here, [safe, unsafe(2, 3, 4)]).stdout == "unsat\n"


def test_inputs_that_contradict_each_other_are_unsat(here):
    text = format_vnnlib(unsafe(0, 1, 0.5)) + "(assert (<= X_0 -1))\n"
    assert run(here, text).stdout == "unsat\n"


@pytest.mark.parametrize(
    ("statuses", "expected", "code"),
    [
        (["timeout"], "timeout", 3),
        (["unknown"], "unknown", 4),
        (["unsat", "unknown"], "unknown", 4),
        (["timeout", "unsat"], "timeout", 3),
        (["unknown", "sat"], "sat", 1),
    ],
)
def test_what_is_not_decided_has_codes_of_its_own(here, monkeypatch, statuses, expected, code):
    verdicts = iter(statuses)
    limits = []

    def decide(bounded, found, *, timeout, seed, backend):
        limits.append(timeout)
        return Verdict(next(verdicts), "CROWN", 0.0)

    monkeypatch.setattr("glsk.verify.verify", decide)
    result = run(here, [unsafe(0, 1, 0.5), unsafe(2, 3, 4)][: len(statuses)], "--timeout", 7)
    assert (result.exit_code, result.stdout) == (code, f"{expected}\n")
    assert all(0 < limit <= 7 for limit in limits)
    assert set(command.EXIT_CODES) == {"unsat", "sat", "timeout", "unknown"}


def test_trained_weights_are_a_network_too(here, tmp_path):
    net = build("cnn3", (1, 8, 8), 3, seed=1)
    save_weights(tmp_path / "net.safetensors", net, Description("cnn3", "tiny", (1, 8, 8), 3, 0.02))
    x = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        label = int(net(x[None]).argmax())
    (tmp_path / "p.vnnlib").write_text(format_vnnlib(margin_property(x, label, 1e-4, num_classes=3)))
    arguments = ["verify", str(tmp_path / "net.safetensors"), str(tmp_path / "p.vnnlib")]
    assert CliRunner().invoke(app, arguments, catch_exceptions=False).stdout == "unsat\n"


def test_what_is_wrong_is_one_line_and_2(here):
    short = Property(((torch.zeros(1), torch.ones(1)),), ((torch.ones(1, 2), torch.zeros(1)),))
    for found, message in (
        ("(assert)", "p.vnnlib:1: 'assert' is not understood"),
        (short, "2 inputs and 2 outputs, the property is about 1 and 2"),
    ):
        result = run(here, found)
        assert result.exit_code == 2
        assert message in result.stderr
        assert len(result.stderr.splitlines()) == 1
