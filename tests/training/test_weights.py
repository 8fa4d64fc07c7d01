import json

import pytest
import torch
from safetensors.torch import save_file

from glsk import CheckpointError
from glsk.models import build
from glsk.training.weights import Description, load_weights, save_weights


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_a_file_describes_its_network(tmp_path):
    net = build("cnn3", (3, 12, 16), 7, mean=(0.1, 0.2, 0.3), std=(1, 2, 3), seed=5)
    written = Description("cnn3", "set", (3, 12, 16), 7, 0.25)
    save_weights(tmp_path / "w.safetensors", net, written)
    found, description = load_weights(tmp_path / "w.safetensors")
    assert description == written
    assert same(found, net)
    x = torch.rand(2, 3, 12, 16)
    torch.testing.assert_close(found(x), net(x))


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_a_plain_state_dict_needs_the_models_name(tmp_path, shape):
    net, path = build("cnn5", shape, seed=2), tmp_path / "plain.safetensors"
    save_file(net.state_dict(), str(path))
    found, description = load_weights(path, "cnn5")
    assert description is None
    assert same(found, net)
    with pytest.raises(ValueError, match=r"plain\.safetensors: does not say .*--model"):
        load_weights(path)
    with pytest.raises(CheckpointError, match=r"plain\.safetensors: does not fit cnn3"):
        load_weights(path, "cnn3")
    with pytest.raises(ValueError, match="known: cnn3, cnn5"):
        load_weights(path, "cnn4")


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(path, build("cnn3"), Description("cnn3", "mnist", (1, 28, 28), 10, 0.1))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"w\.safetensors: truncated"):
        load_weights(path)
    with pytest.raises(CheckpointError, match=r"none\.safetensors: no such file"):
        load_weights(tmp_path / "none.safetensors")


def test_the_same_weights_are_the_same_bytes_and_every_bit_counts(tmp_path):
    net, description = build("cnn3", (1, 8, 8)), Description("cnn3", "mnist", (1, 8, 8), 10, 0.1)
    paths = [tmp_path / f"{i}.safetensors" for i in range(2)]
    for path in paths:
        save_weights(path, net, description)
    raw = paths[0].read_bytes()
    assert raw == paths[1].read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    for at in (start, (start + len(raw)) // 2, len(raw) - 1, raw.index(b"0.1")):
        damaged = bytearray(raw)
        damaged[at] ^= 1
        paths[1].write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"1\.safetensors"):
            load_weights(paths[1])


def test_a_file_without_a_digest_is_loaded_with_a_note(tmp_path, caplog):
    net, path = build("cnn3", (1, 28, 28)), tmp_path / "old.safetensors"
    old = {"model": "cnn3", "dataset": "mnist", "input_shape": [1, 28, 28], "num_classes": 10, "eps": 0.1}
    save_file(net.state_dict(), str(path), {"glsk_weights": json.dumps(old)})
    found, _ = load_weights(path)
    assert same(found, net)
    assert "old.safetensors: has no digest" in caplog.text


def test_float64_weights_are_not_rounded(tmp_path):
    net, path = build("cnn3").double(), tmp_path / "double.safetensors"
    save_file(net.state_dict(), str(path))
    assert same(load_weights(path, "cnn3")[0].double(), net)
    with torch.no_grad():
        net[0].bias[0] = 0.1
    save_file(net.state_dict(), str(path))
    with pytest.raises(CheckpointError, match=r"double\.safetensors: 0\.bias .*rounded"):
        load_weights(path, "cnn3")


def test_a_full_disk_names_the_file(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("glsk.training.weights.write_bytes", full)
    with pytest.raises(OSError, match=r"No space left on device: .*w\.safetensors"):
        save_weights(tmp_path / "w.safetensors", build("cnn3"), Description("cnn3", "mnist", (1, 28, 28), 10, 0.1))
