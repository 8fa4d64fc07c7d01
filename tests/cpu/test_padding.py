"""Outputs that see nothing but padding: they read no window of inputs, and their rows of inputs are zeros."""

import pytest
import torch
from torch import nn

import glsk


@pytest.mark.parametrize("method", ["CROWN", "HBox"])
@pytest.mark.parametrize("stride", [1, 2])
def test_outputs_that_see_only_padding(method: str, stride: int) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 2, (1, 3), stride=(1, stride)),
        nn.ReLU(),
        nn.Conv2d(2, 3, 1, padding=(0, 1)),
        nn.ReLU(),
        nn.Flatten(),
    ).double()
    x = torch.rand(20, 1, 1, 9, dtype=torch.float64)
    net.append(nn.Linear(net(x).shape[1], 2).double())
    bounded = glsk.BoundedModule(net, (1, 1, 9))
    found = bounded.compute_bounds(x, eps=0.1, method=method, backend="cpu")
    wanted = bounded.compute_bounds(x, eps=0.1, method=method, backend="reference")
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("method", ["CROWN", "HBox", "IBP"])
def test_outputs_of_deeper_layers_that_see_only_padding(method: str, gradient: bool) -> None:
    """A pool's stride beyond its kernel made a window of nothing -1 wide on the way down."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 2, (1, 3), stride=(1, 2), padding=(2, 1)),
        nn.LeakyReLU(0.7),
        nn.AvgPool2d((3, 1), stride=2, padding=(1, 0)),
        nn.Conv2d(2, 2, (4, 1), stride=(3, 1), padding=(2, 1), bias=False),
        nn.ReLU(),
        nn.AvgPool2d((2, 3), stride=2, padding=(0, 1)),
        nn.Flatten(),
    ).double()
    x = torch.rand(20, 1, 8, 3, dtype=torch.float64)
    net.append(nn.Linear(net(x).shape[1], 27).double())
    bounded = glsk.BoundedModule(net, (1, 8, 3))

    def found(backend: str) -> list[torch.Tensor]:
        ends = bounded.compute_bounds(x, eps=0.1, method=method, backend=backend)
        return list(torch.autograd.grad(ends[0].sum(), net.parameters()) if gradient else ends)

    for a, b in zip(found("cpu"), found("reference"), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
