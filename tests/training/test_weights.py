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
