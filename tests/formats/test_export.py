"""glsk export, and commands that take what it wrote."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from glsk.cli import app
from glsk.formats import read_onnx, read_vnnlib
from glsk.models import build
from glsk.training.weights import Description, save_weights
from glsk.verify import margin_property


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    random = np.random.RandomState(0)
    x, y = random.rand(6, 8, 8).astype(np.float32), np.arange(6) % 3
    np.savez(folder / "tiny.npz", x=x, y=y)
    net = build("cnn3", (1, 8, 8), 3, seed=1)
    save_weights(folder / "net.safetensors", net, Description("cnn3", "tiny", (1, 8, 8), 3, 0.02))
    return folder, net, torch.from_numpy(x)[:, None], torch.from_numpy(y)


def invoke(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def exported(here):
    folder, *_ = here
    result = invoke(
        "export", folder / "net.safetensors", folder / "out", "--data", folder / "tiny.npz", "-n", 4, "--first", 1
    )
    assert result.exit_code == 0, result.output
    return folder / "out"


def test_the_network_and_an_instance_an_image_are_written(here, exported):
    _, net, x, y = here
    lines = [line.split(",") for line in (exported / "instances.csv").read_text().splitlines()]
    assert [(line[0], line[2]) for line in lines] == [("net.onnx", "120")] * 4
    found = read_onnx(exported / "net.onnx")
    torch.testing.assert_close(found.network(x.double()).float(), net(x))
    for i, (_, name, _) in enumerate(lines, 1):
        (instance,) = read_vnnlib(exported / name)
        expected = margin_property(x[i], int(y[i]), 0.02, (0.0, 1.0), 3)
        assert all(a.equal(b.flatten()) for a, b in zip(instance.boxes[0], expected.boxes[0], strict=True))
        assert all(a.A.equal(b.A) and a.b.equal(b.b) for a, b in zip(instance.unsafe, expected.unsafe, strict=True))


def test_certify_and_bounds_take_the_onnx_file(here, exported):
    folder, *_ = here
    options = ("--data", folder / "tiny.npz", "--eps", 0.02, "--method", "CROWN", "--json")
    for command, more in (("certify", ("--restarts", 1)), ("bounds", ("--index", 2))):
        a, b = (
            json.loads(invoke(command, path, *options, *more).stdout)
            for path in (exported / "net.onnx", folder / "net.safetensors")
        )
        assert a == b


def test_what_is_wrong_is_one_line(here, exported):
    folder, *_ = here
    data = ("--data", folder / "tiny.npz")
    result = invoke("export", folder / "net.safetensors", folder / "other", *data, "--first", 6)
    assert (result.exit_code, result.stderr) == (2, "glsk: error: --first: tiny has 6 test images, got 6\n")
    assert not (folder / "other").exists()
    result = invoke("certify", exported / "net.onnx", *data, "--model", "cnn3")
    assert result.exit_code == 2
    assert "an ONNX file holds its network; leave out --model" in result.stderr
