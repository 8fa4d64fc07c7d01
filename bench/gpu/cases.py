"""Networks, members and images for the checks on a GPU."""

import torch
from torch import Tensor

import glsk
from glsk import models

SHAPES = {"MNIST": (1, 28, 28), "CIFAR": (3, 32, 32)}


def case(
    net: str, shape: tuple[int, int, int], members: int, samples: int, device: str, dtype: torch.dtype, sigma: float
) -> tuple[glsk.BoundedModule, dict[str, Tensor]]:
    """An untrained network, seeded, and arguments of ``compute_bounds`` for a population around it."""
    torch.manual_seed(0)
    model = models.build(net, shape)
    flat = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
    params = flat + sigma * torch.randn(members, flat.numel())
    x, y = torch.rand(samples, *shape), torch.arange(samples) % 10
    tensors = {"x": x, "C": glsk.margins(y), "params": params}
    return glsk.BoundedModule(model, shape), {k: t.to(device=device, dtype=dtype) for k, t in tensors.items()}
