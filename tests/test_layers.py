"""Normalize: a per-channel affine map with which eps and clip stay in data units."""

import pytest
import torch
from torch import nn

import glsk
from tests.support import CPU_BACKENDS, METHODS, assert_bounds_close


def test_forward_is_per_channel() -> None:
    x = torch.rand(2, 3, 4, 5)
    y = glsk.Normalize([0.1, 0.2, 0.3], [0.5, 1.0, 2.0])(x)
    for c, (mean, std) in enumerate([(0.1, 0.5), (0.2, 1.0), (0.3, 2.0)]):
        torch.testing.assert_close(y[:, c], (x[:, c] - mean) / std)


def test_forward_of_flat_inputs() -> None:
    torch.testing.assert_close(glsk.Normalize(0.5, 2.0)(torch.ones(3, 4)), torch.full((3, 4), 0.25))


@pytest.mark.parametrize(
    ("mean", "std"),
    [([0.0], [1.0, 1.0]), ([0.0], [0.0]), ([0.0], [-1.0]), ([float("nan")], [1.0]), (0.0, float("inf"))],
)
def test_bad_statistics_are_refused(mean: object, std: object) -> None:
    with pytest.raises(ValueError, match="Normalize"):
        glsk.Normalize(mean, std)


def test_it_has_no_parameters_and_is_saved() -> None:
    layer = glsk.Normalize([0.1, 0.2], [1.0, 2.0])
    assert not list(layer.parameters())
    assert set(layer.state_dict()) == {"mean", "std"}
    assert "0.1" in repr(layer)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_it_equals_scaling_the_box_by_hand(method: str, backend: str) -> None:
    body = [nn.Conv2d(2, 3, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(27, 4)]
    mean, std = [0.4, -0.1], [0.2, 3.0]
    net = nn.Sequential(glsk.Normalize(mean, std), *body).double()
    x = torch.rand(3, 2, 6, 6, dtype=torch.float64)
    found = glsk.BoundedModule(net, (2, 6, 6)).compute_bounds(x, eps=0.1, clip=(0, 1), method=method, backend=backend)
    low, high = ((x + e).clamp(0, 1) for e in (-0.1, 0.1))
    low, high = (net[0](t) for t in (low, high))
    plain = glsk.BoundedModule(nn.Sequential(*body), (2, 6, 6))
    assert_bounds_close(found, plain.compute_bounds(x_L=low, x_U=high, method=method, backend=backend), 1e-12)


def test_the_network_itself_agrees_at_a_point() -> None:
    net = nn.Sequential(glsk.Normalize(0.3, 0.7), nn.Flatten(), nn.Linear(9, 2)).double()
    x = torch.rand(4, 1, 3, 3, dtype=torch.float64)
    bounds = glsk.BoundedModule(net, (1, 3, 3)).compute_bounds(x, eps=0.0)
    assert_bounds_close(bounds, (net(x).detach(),) * 2, 1e-12)
