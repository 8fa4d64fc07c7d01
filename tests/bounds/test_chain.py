"""One op for the whole chain says what the relaxations say in terms of the other ops."""

import pytest
import torch
from torch import nn

import glsk
from glsk import bounds
from glsk.bounds.output import in_one_op
from glsk.ops.chain_bounds import METHODS, chain_bounds_reference

NETS = {
    "convolutions": lambda: nn.Sequential(
        nn.Conv2d(2, 5, 3, 2, 1), nn.ReLU(), nn.Conv2d(5, 7, (2, 3), 1, 1), nn.ReLU(), nn.Flatten(), nn.Linear(105, 6)
    ),
    "no ReLU in between": lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(80, 19), nn.ReLU(), nn.Linear(19, 11), nn.Linear(11, 6)
    ),
    "one layer": lambda: nn.Sequential(nn.Flatten(), nn.Linear(84, 6)),
    "more rows than units": lambda: nn.Sequential(nn.Flatten(), nn.Linear(84, 2), nn.ReLU(), nn.Linear(2, 6)),
}


def query(
    name: str, dtype: torch.dtype, specification: bool, bound_upper: bool, prune: bool, monkeypatch
) -> bounds.Query:
    """The query that compute_bounds makes of a net, 3 members and 19 samples."""
    torch.manual_seed(0)
    net = NETS[name]().to(dtype)
    bounded = glsk.BoundedModule(net, (2, 7, 6))
    params = 0.3 * torch.randn(3, bounded.num_parameters, dtype=dtype)
    x = torch.rand(19, 2, 7, 6, dtype=dtype)
    C = torch.randn(19, 90, 6, dtype=dtype) if specification else None
    seen = []
    monkeypatch.setattr(bounds, "in_one_op", lambda method, query: seen.append(query) or True)
    bounded.compute_bounds(x, eps=0.05, C=C, params=params, bound_upper=bound_upper, prune=prune)
    monkeypatch.undo()
    return seen[0]


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("prune", [False, True])
@pytest.mark.parametrize(("specification", "bound_upper"), [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 1e-5)])
def test_equals_the_relaxation(name, method, specification, bound_upper, prune, dtype, tolerance, monkeypatch):
    asked = query(name, dtype, specification, bound_upper, prune, monkeypatch)
    *_, wanted = bounds.get(method)(asked)
    args = (asked.x_L, asked.x_U, list(asked.population.weights), list(asked.population.biases), asked.C)
    geometry = [value for layer in asked.layers for value in layer]
    found = {
        "reference": chain_bounds_reference(
            *args, geometry, [0.0] * len(asked.layers), method, prune, bound_upper, False
        )[:2],
        "chosen": bounds.output_bounds(method, asked),
    }
    for way, pair in found.items():
        for got, expected in zip(pair, wanted, strict=True):
            assert got.shape == expected.shape, way
            torch.testing.assert_close(got, expected, atol=tolerance * 10, rtol=tolerance, msg=way)


def test_the_cpu_backend_has_it(monkeypatch):
    if glsk.backends.why_missing("cpu") is not None:
        pytest.skip("no cpu backend")
    asked = query("convolutions", torch.float32, True, True, False, monkeypatch)
    assert all(in_one_op(method, asked) for method in METHODS)
