"""Whatever is wrong with what a command is given: one line on standard error, exit code 2, no traceback."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from glsk.cli import app
from glsk.models import build
from glsk.training.weights import Description, save_weights


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with good weights and data, and everything that may be given in their place."""
    folder = tmp_path_factory.mktemp("cli")
    random = np.random.RandomState(0)
    x, y = random.rand(10, 8, 8), np.arange(10)
    np.savez(folder / "good.npz", x=x, y=y)
    np.savez(folder / "nan.npz", x=np.full_like(x, np.nan), y=y)
    np.savez(folder / "many.npz", x=x, y=y * 10**8)
    np.savez(folder / "more.npz", x=x, y=y + 5)
    np.savez(folder / "empty.npz", x=x[:0], y=y[:0])
    np.savez(folder / "flat.npz", x=x[:, :0], y=y)
    np.savez(folder / "keys.npz", a=x, b=y)
    np.savez(folder / "large.npz", x=random.rand(2, 12, 12), y=y[:2])
    (folder / "text.npz").write_text("no archive")
    (folder / "folder.npz").mkdir()
    (folder / "nothing").mkdir()
    net = build("cnn3", (1, 8, 8), seed=1)
    good = folder / "good.safetensors"
    save_weights(good, net, Description("cnn3", "tiny", (1, 8, 8), 10, 0.02))
    (folder / "run").mkdir()
    (folder / "run" / "weights.safetensors").write_bytes(good.read_bytes())
    raw = bytearray(good.read_bytes())
    raw[-1] ^= 1
    (folder / "flipped.safetensors").write_bytes(raw)
    (folder / "cut.safetensors").write_bytes(raw[:200])
    torch.save(net.state_dict(), folder / "net.pt")
    torch.save(net.state_dict(), folder / "net.pth")
    (folder / "net.onnx").write_bytes(b"\x08\x07")
    description = {"model": "cnn3", "dataset": "t", "input_shape": [1, 8, 8], "num_classes": 10, "eps": 0.1}
    for name, change in {
        "classes": {"num_classes": 10**10},
        "shape": {"input_shape": [1, 8, 10**10]},
        "side": {"input_shape": [1, 4000, 4000]},
        "model": {"model": "resnet"},
        "eps": {"eps": float("nan")},
        "version": {"glsk_version": "0.1.0"},
    }.items():
        save_file(net.state_dict(), folder / f"{name}.safetensors", {"glsk_weights": json.dumps(description | change)})
    save_file(net.state_dict(), folder / "json.safetensors", {"glsk_weights": "{"})
    save_file(net.state_dict(), folder / "plain.safetensors")
    broken = {name: value.clone() for name, value in net.state_dict().items()}
    broken["0.bias"][0] = torch.nan
    save_file(broken, folder / "nan.safetensors", {"glsk_weights": json.dumps(description)})
    return folder


GOOD = ["good.safetensors", "--data", "good.npz"]
WEIGHTS = {
    "run": "give .*run/weights.safetensors",
    "nothing": "a folder",
    "none": "no such file",
    "net.pt": "does not say which network",
    "net.pth": "does not say which network",
    "net.onnx": "operator set",
    "good.npz": "not weights",
    "flipped.safetensors": "digest",
    "cut.safetensors": "truncated",
    "classes.safetensors": "does not fit",
    "shape.safetensors": "input_shape",
    "side.safetensors": "does not fit",
    "model.safetensors": "model",
    "eps.safetensors": "eps",
    "version.safetensors": "digest",
    "json.safetensors": "JSON",
    "plain.safetensors": "--model",
    "nan.safetensors": "NaN",
}
DATA = {
    "nan.npz": "must lie in",
    "many.npz": "label 900000000",
    "more.npz": "label 14",
    "empty.npz": "no test images",
    "flat.npz": "no pixels",
    "keys.npz": "holds a, b",
    "large.npz": "takes images",
    "text.npz": "not an .npz",
    "folder.npz": "a folder",
    "none.npz": "no such file",
    "none": "no such file",
    "net.pt": "not a file of",
}
OPTIONS = [
    *(["--eps", text] for text in ("1/0", "nan", "inf", "-0.1", "-1/255", "x", "1/", "/2", "1/2/3", "", "1e400")),
    ["--method", "zonotope"],
    ["--backend", "tpu"],
    ["--dtype", "half"],
    ["--threads", "-1"],
    ["--threads", "x"],
    ["--model", "resnet"],
    ["--dataset", "svhn", "--data", "nothing"],
    ["--nonsense"],
]
BAD = [
    *([command, name, "--data", "good.npz"] for command in ("certify", "bounds") for name in WEIGHTS),
    *([command, "good.safetensors", "--data", name] for command in ("certify", "bounds") for name in DATA),
    *([command, *GOOD, *option] for command in ("certify", "bounds") for option in OPTIONS),
    *(["certify", *GOOD, *o] for o in (["-n", "-1"], ["--batch-size", "0"], ["--restarts", "-1"], ["--device", "x"])),
    *(["bounds", *GOOD, "--index", i] for i in ("10", "-1", "x")),
    ["certify"],
    ["nonsense"],
    ["--nonsense"],
    ["info", "x"],
    *(["train", "--data", "good.npz", "--out", "out", "--eps", eps] for eps in ("1/0", "nan", "-1")),
    ["train", "--data", "good.npz", "--out", "out", "--set", "eps=1/0"],
]


@pytest.mark.parametrize("arguments", BAD, ids=" ".join)
def test_one_line_and_exit_code_2(here, monkeypatch, arguments):
    monkeypatch.chdir(here)
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, SystemExit)
    assert result.exit_code == 2
    lines = [line for line in result.stderr.splitlines() if not line.startswith("glsk: note:")]
    assert len(lines) == 1
    assert lines[0].startswith("glsk: error: ")
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *((["certify", name, "--data", "good.npz"], message) for name, message in WEIGHTS.items()),
        *((["certify", "good.safetensors", "--data", name], message) for name, message in DATA.items()),
    ],
)
def test_the_line_names_the_file_and_what_is_wrong(here, monkeypatch, arguments, message):
    monkeypatch.chdir(here)
    line = CliRunner().invoke(app, arguments).stderr.splitlines()[-1]
    assert any(name.split(".")[0] in line for name in arguments[1:4:2])
    assert re.search(message, line)


def test_methods_count_once_and_no_attack_is_none(here, monkeypatch):
    monkeypatch.chdir(here)
    options = ["--method", "CROWN", "--method", "DeepPoly", "--restarts", "0", "--json"]
    found = json.loads(CliRunner().invoke(app, ["certify", *GOOD, *options]).stdout)
    assert found["adversarial"] is None
    assert list(found["certified"]) == ["CROWN"]
    assert 0 <= found["certified"]["CROWN"] <= found["natural"] <= 1


@pytest.mark.parametrize(("command", "target"), [("certify", "evaluate"), ("bounds", "inspect.inspect_sample")])
def test_an_interrupt_is_one_line_and_130(here, monkeypatch, command, target):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.chdir(here)
    monkeypatch.setattr(f"glsk.verify.{target}", interrupted)
    result = CliRunner().invoke(app, [command, *GOOD])
    assert result.exit_code == 130
    assert result.stderr == "glsk: interrupted\n"


@pytest.mark.parametrize("sink", ["true", "/dev/full"])
def test_output_that_cannot_be_written(sink):
    command = f'"{sys.executable}" -m glsk info'
    shell = f"set -o pipefail; {command} | true" if sink == "true" else f"{command} > /dev/full"
    found = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
    assert "Traceback" not in found.stderr
    if sink == "true":
        assert (found.returncode, found.stderr) in ((141, ""), (0, ""))
    else:
        assert found.returncode == 2
        assert len(found.stderr.splitlines()) == 1
        assert "standard output" in found.stderr
