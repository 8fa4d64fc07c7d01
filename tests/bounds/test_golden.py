"""Bounds that public peers have computed, reproduced: every method, every layer, the margins."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import glsk
from glsk import models
from tests.support import CPU_BACKENDS, assert_close

METHODS = ("CROWN", "CROWN-IBP", "HBox", "IBP")
NETS = ("cnn3", "cnn5")
GOLDEN = Path(__file__).parents[1] / "golden"
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}
# The float64 reference is held to the peers, and every compiled backend in both dtypes.
RUNS = [
    (backend, dtype)
    for backend in CPU_BACKENDS
    for dtype in (torch.float32, torch.float64)
    if (backend, dtype) != ("reference", torch.float32)
]


@cache
def load(net: str) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"{net}_pgd_eps0.1.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


@cache
def query(net: str, dtype: torch.dtype) -> tuple[glsk.BoundedModule, dict[str, object]]:
    """The network, and the arguments that both calls take."""
    data = load(net)
    params = {name.removeprefix("param:"): value.to(dtype) for name, value in data.items() if name.startswith("param:")}
    bounded = glsk.BoundedModule(models.build(net).to(dtype), (1, 28, 28))
    return bounded, {"x_L": data["x_lower"].to(dtype), "x_U": data["x_upper"].to(dtype), "params": params}


def peer(net: str, method: str, what: str) -> Tensor:
    """A peer's bounds of a layer; those that are equal for several methods are stored once."""
    first = what.endswith(":0")
    return load(net)[f"{'IBP' if first or (method == 'CROWN-IBP' and what != 'margin') else method.upper()}:{what}"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize(("backend", "dtype"), RUNS)
def test_margins(net: str, method: str, backend: str, dtype: torch.dtype) -> None:
    bounded, arguments = query(net, dtype)
    C = glsk.margins(load(net)["y"])
    lower, upper = bounded.compute_bounds(
        **arguments, C=C, method=method, backend=backend, prune=False, bound_upper=False
    )
    assert upper is None
    assert_close(lower, peer(net, method, "margin"), TOLERANCE[dtype])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize(("backend", "dtype"), RUNS)
def test_layers(net: str, method: str, backend: str, dtype: torch.dtype) -> None:
    bounded, arguments = query(net, dtype)
    found = bounded.intermediate_bounds(**arguments, method=method, backend=backend)
    assert list(found) == {"cnn3": ["0", "2"], "cnn5": ["0", "2", "4", "7"]}[net]
    for layer, (lower, upper) in found.items():
        assert_close(lower, peer(net, method, f"lower:{layer}"), TOLERANCE[dtype])
        assert_close(upper, peer(net, method, f"upper:{layer}"), TOLERANCE[dtype])


@pytest.mark.parametrize("net", NETS)
def test_the_box_is_the_clipped_ball(net: str) -> None:
    bounded, arguments = query(net, torch.float64)
    data = load(net)
    ball, _ = bounded.compute_bounds(
        data["x"], eps=float(data["eps"]), clip=(0.0, 1.0), params=arguments["params"], method="IBP"
    )
    box, _ = bounded.compute_bounds(**arguments, method="IBP")
    assert_close(ball, box, 1e-12)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("net", NETS)
def test_pruned_margins_lie_between_the_plain_ones_and_the_truth(net: str, backend: str) -> None:
    """Pruning replaces relaxations by exact ReLUs: on these nets that never loosens a margin, and it stays sound."""
    bounded, arguments = query(net, torch.float64)
    data = load(net)
    C = glsk.margins(data["y"]).double()
    lower, _ = bounded.compute_bounds(**arguments, C=C, backend=backend, bound_upper=False)
    assert (lower >= peer(net, "CROWN", "margin") - 1e-9).all()
    truth, _ = bounded.compute_bounds(data["x"], eps=0.0, C=C, params=arguments["params"], backend="reference")
    assert (lower <= truth + 1e-9).all()
