"""Networks whose adversarial points and bounds are known by hand."""

import torch
from torch import nn

import glsk
from glsk.objectives import MiniBatch, create

ACTIVE = ([[1.0, -1.0], [0.0, 1.0]], [0.3, 0.0])
"""h = (x0 - x1 + 0.3, x1), both active on the ball of radius 0.1 around (0.5, 0.5)."""

IDENTITY = ([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0])
APART = ([[1.0, -1.0], [-1.0, 1.0]], [0.0, 0.0])
"""(h0 - h1, h1 - h0), one of which a ReLU always lets pass."""
SECOND = ([[0.0, 0.0], [1.0, 1.0]], [0.0, 0.0])
"""Logits 0 and h0 + h1."""


def network(*layers, dtype=torch.float64):
    """Affine layers with ReLUs in between."""
    modules = []
    for weight, bias in layers:
        one = nn.Linear(len(weight[0]), len(weight), dtype=dtype)
        one.weight.data, one.bias.data = torch.tensor(weight, dtype=dtype), torch.tensor(bias, dtype=dtype)
        modules += [one, nn.ReLU()]
    return glsk.BoundedModule(nn.Sequential(*modules[:-1]), 2)


def loss(name, bounded, eps=0.1, *, ramp=1.0, **settings):
    """The loss at (0.5, 0.5), which is of class 0."""
    x = torch.full((1, 2), 0.5, dtype=torch.float64)
    return create(name, bounded, 2, settings)(MiniBatch(x, torch.tensor([0]), eps, ramp=ramp))
