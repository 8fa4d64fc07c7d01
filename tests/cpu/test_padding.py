"""Outputs that see nothing but padding: their rows of inputs are zeros, whatever the scratch held before."""

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
