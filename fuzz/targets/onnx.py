"""ONNX files: damaged bytes, or graphs that are no chain, of other operators and attributes."""

import torch
from torch import nn

import glsk
from fuzz import scratch
from glsk.formats import onnx_bytes, read_onnx


def seeds() -> list[bytes]:
    """Small networks of every layer that is written."""
    norm = nn.BatchNorm2d(2).eval()
    nets = [
        (nn.Sequential(nn.Linear(4, 3), nn.LeakyReLU(0.1), nn.Linear(3, 2)), (4,)),
        (
            nn.Sequential(glsk.Normalize(0.5, 0.25), nn.Conv2d(1, 2, 3, 2, 1), norm, nn.ReLU(), nn.AvgPool2d(2)),
            (1, 8, 8),
        ),
    ]
    nets[1][0].extend([nn.Flatten(), nn.Linear(8, 2)])
    return [onnx_bytes(net, shape) for net, shape in nets]


def check(data: bytes) -> None:
    """DataError or UnsupportedLayerError, or a network that can be bounded."""
    path = scratch.folder() / "fuzz.onnx"
    path.write_bytes(data)
    with scratch.refusing(glsk.DataError, glsk.UnsupportedLayerError, naming=path):
        found = read_onnx(path)
        if len(found.order) < 10_000:
            x = found.to_network(torch.zeros(1, len(found.order), dtype=torch.float64))
            assert found.network(x).shape == (1, found.num_outputs)
