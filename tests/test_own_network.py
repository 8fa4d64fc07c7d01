"""A network of the user's own wherever a name of one is taken."""

import pytest
import torch

from glsk import CheckpointError, Normalize
from glsk.models import build
from glsk.training.weights import Description, load_weights, save_weights

FILE = """
from torch import nn
import glsk

def small(input_shape, num_classes):
    features = input_shape[0] * input_shape[1] * input_shape[2]
    return nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(features, 5), nn.ReLU()), nn.Linear(5, num_classes))

def normalised(input_shape, num_classes):
    return [glsk.Normalize(0.5, 0.25), *small(input_shape, num_classes)]

def nothing(input_shape, num_classes):
    return "layers"

value = 3
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "net.py"
    path.write_text(FILE)
    return path


def test_it_is_built_for_a_shape_with_weights_of_a_seed(file):
    net = build(f"{file}:small", (1, 8, 8), 4, seed=2)
    assert net(torch.rand(3, 1, 8, 8)).shape == (3, 4)
    again, other = (build(f"{file}:small", (1, 8, 8), 4, seed=seed) for seed in (2, 3))
    assert again[1][0].weight.equal(net[1][0].weight)
    assert not other[1][0].weight.equal(net[1][0].weight)
    assert not net[1][0].bias.any()


def test_a_normalisation_comes_first_unless_it_has_its_own(file):
    plain, own = (build(f"{file}:{name}", (1, 8, 8), 4, mean=[0.1], std=[0.2]) for name in ("small", "normalised"))
    assert [isinstance(layer, Normalize) for layer in plain] == [True, False, False, False]
    assert [isinstance(layer, Normalize) for layer in own] == [True, False, False, False]
    assert own[0].mean.item() == 0.5


def test_what_is_wrong_is_named(file, tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("1 / 0")
    for name, message in {
        f"{tmp_path}/none.py:small": r"none\.py: no such file",
        f"{broken}:small": r"broken\.py: cannot be executed \(ZeroDivisionError",
        f"{file}:large": "has no function 'large'",
        f"{file}:value": "has no function 'value'",
        f"{file}:nothing": "returned str, expected an nn.Sequential",
        f"{file}": "unknown",
    }.items():
        with pytest.raises(ValueError, match=message):
            build(name, (1, 8, 8))


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_weights_of_it_are_loaded_on_the_callers_word_alone(file, tmp_path, suffix):
    reference, path = f"{file}:normalised", tmp_path / f"weights.{suffix}"
    net = build(reference, (1, 8, 8), 4, seed=1)
    if suffix == "pt":
        torch.save({"state_dict": net.state_dict()}, path)
        with pytest.raises(CheckpointError, match=r"weights\.pt: does not fit .*net\.py:normalised"):
            load_weights(path, reference)  # a state dict alone is taken to be for MNIST
        net = build(reference, (1, 28, 28), 4, seed=1)
        torch.save({"state_dict": net.state_dict()}, path)
    else:
        save_weights(path, net, Description(reference, "tiny", (1, 8, 8), 4, 0.1))
        with pytest.raises(ValueError, match="a program; if you trust it, name it with --model"):
            load_weights(path)
    found, _ = load_weights(path, reference)
    assert all(a.equal(b) for a, b in zip(found.state_dict().values(), net.state_dict().values(), strict=True))
