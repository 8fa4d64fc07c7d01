import math

import numpy as np
import pytest
import torch
from torch import nn

from glsk import Normalize
from glsk.models import MODELS, build

PARAMETERS = {
    ("cnn3", (1, 28, 28)): 5170,
    ("cnn5", (1, 28, 28)): 165850,
    ("cnn3", (3, 32, 32)): 6770,
    ("cnn5", (3, 32, 32)): 281338,
}


@pytest.mark.parametrize(("name", "shape"), PARAMETERS)
def test_parameter_count_and_output_shape(name, shape):
    net = build(name, shape)
    assert sum(p.numel() for p in net.parameters()) == PARAMETERS[name, shape]
    assert net(torch.rand(2, *shape)).shape == (2, 10)


@pytest.mark.parametrize("name", MODELS)
def test_parameters_are_named_and_shaped_as_in_the_golden_files(name, golden):
    with np.load(golden / f"{name}_pgd_eps0.1.npz") as file:
        expected = {k.removeprefix("param:"): v.shape[1:] for k, v in file.items() if k.startswith("param:")}
    assert {k: tuple(v.shape) for k, v in build(name).named_parameters()} == expected


def test_normalize_comes_first_and_adds_no_parameters():
    net = build("cnn3", (3, 32, 32), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    assert isinstance(net[0], Normalize)
    assert [name for name, _ in net.named_parameters()][:2] == ["1.weight", "1.bias"]
    plain = build("cnn3", (3, 32, 32))
    x = torch.rand(2, 3, 32, 32)
    scaled = (x - net[0].mean.view(3, 1, 1)) / net[0].std.view(3, 1, 1)
    torch.testing.assert_close(net(x), plain(scaled))


def test_weights_are_kaiming_uniform_and_biases_zero():
    for layer in build("cnn5"):
        if isinstance(layer, nn.Conv2d | nn.Linear):
            bound = (6 / layer.weight[0].numel()) ** 0.5
            assert layer.weight.abs().max() <= bound
            assert float(layer.weight.detach().std()) == pytest.approx(bound / 3**0.5, rel=0.1)
            assert not layer.bias.any()


def test_shis_weights_are_normal_and_keep_the_width_of_intervals():
    for layer in build("cnn5", initialisation="shi"):
        if isinstance(layer, nn.Conv2d | nn.Linear):
            expected = (2 * math.pi) ** 0.5 / layer.weight[0].numel()
            assert float(layer.weight.detach().std()) == pytest.approx(expected, rel=0.1)
            # |W| has the mean sqrt(2 / pi) sigma, so a unit's width is twice the mean width of its inputs
            assert float(layer.weight.detach().abs().sum(1).mean()) == pytest.approx(
                2 * layer.weight.shape[1] / layer.weight[0].numel(), rel=0.1
            )
            assert not layer.bias.any()
    with pytest.raises(ValueError, match="initialisation: unknown 'zeros'; known: kaiming-uniform, shi"):
        build("cnn3", initialisation="zeros")


def test_seed_decides_the_weights_and_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    first, again, other = (build("cnn3", seed=seed)[0].weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(state, torch.get_rng_state())


def test_name_is_case_insensitive():
    assert len(build("CNN3")) == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet"}, "known: cnn3, cnn5"),
        ({"name": "cnn3", "input_shape": (1, 4, 4)}, "at least 8x8"),
        ({"name": "cnn3", "input_shape": (784,)}, "at least 8x8"),
        ({"name": "cnn3", "mean": (0.5,)}, "come together"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        build(**arguments)
