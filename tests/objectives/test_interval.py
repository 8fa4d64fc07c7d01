"""Rows of the logits at points, as bounds over boxes without width: what the network says there, and its gradients."""

import pytest
import torch

import glsk
from glsk import models
from glsk.attacks.members import Members, rows_at
from glsk.objectives import interval
from glsk.population import Population


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("leak", [0.0, 0.1])
@pytest.mark.parametrize("first", [0, 1, 2])
def test_at_points_is_the_network_and_its_gradient(backend, leak, first):
    net = models.build("cnn3", (2, 8, 12), 4, seed=3).double()
    geometry = tuple(layer.geometry for layer in glsk.BoundedModule(net, (2, 8, 12)).chain.layers)
    generator = torch.Generator().manual_seed(first)
    weights, biases = [], []
    for layer in geometry:
        shape = (layer.out_channels, layer.in_channels, layer.kernel_height, layer.kernel_width)
        weights.append(torch.randn(3, *shape, generator=generator, dtype=torch.float64).requires_grad_())
        biases.append(torch.randn(3, shape[0], generator=generator, dtype=torch.float64).requires_grad_())

    whole = Members(geometry, (leak, leak, 0.0), Population(weights, biases), backend)
    last = whole.part(first)
    points = torch.randn(3, 5, 6, last.layers[0].in_features, generator=generator, dtype=torch.float64)
    rows = torch.randn(5, 6, 4, generator=generator, dtype=torch.float64)
    used = [points.requires_grad_(), *weights[first:], *biases[first:]]
    found = interval.at_points(last, points, rows)
    wanted = rows_at(rows, last.logits(points.flatten(1, 2)).unflatten(1, (5, 6)))
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12 * float(wanted.detach().abs().max()))
    by = torch.randn(3, 5, 6, generator=generator, dtype=torch.float64)
    for one, other in zip(torch.autograd.grad(found, used, by), torch.autograd.grad(wanted, used, by), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11 * float(other.abs().max()))
