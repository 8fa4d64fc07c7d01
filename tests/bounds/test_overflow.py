"""Weights and boxes near the ends of float32: the right bounds, or NaN and an error, never a false number."""

import math

import pytest
import torch
from torch import Tensor, nn

import glsk
from glsk.ops import chain_bounds
from tests.support import METHODS

EVERY = (*METHODS, "alpha-CROWN")


def network(*layers: tuple[list[list[float]], list[float]]) -> nn.Sequential:
    """Linear layers with a ReLU between any two."""
    modules: list[nn.Module] = []
    for weight, bias in layers:
        modules += [nn.Linear(len(weight[0]), len(weight)), nn.ReLU()]
        with torch.no_grad():
            modules[-2].weight.copy_(torch.tensor(weight))
            modules[-2].bias.copy_(torch.tensor(bias))
    return nn.Sequential(*modules[:-1])


def bounds(net: nn.Sequential, low: float, high: float, method: str) -> tuple[Tensor, Tensor]:
    x_L, x_U = torch.tensor([[low]]), torch.tensor([[high]])
    with torch.no_grad():
        return glsk.BoundedModule(net, (1,)).compute_bounds(x_L=x_L, x_U=x_U, method=method, backend="reference")


@pytest.mark.parametrize("method", EVERY)
def test_a_width_beyond_the_largest_number(method: str) -> None:
    """ReLU(2e38 x) / 1e38 on [-1, 1]: u - l overflows, the bounds do not."""
    lower, upper = bounds(network(([[2e38]], [0.0]), ([[-1e-38]], [1.0])), -1.0, 1.0, method)
    assert lower.item() <= -1 + 1e-5
    assert upper.item() >= 1 - 1e-5
    if method in ("CROWN", "CROWN-IBP", "IBP", "HBox"):
        assert lower.item() == pytest.approx(-1.0, abs=1e-5)
        assert upper.item() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("method", EVERY)
def test_a_box_whose_ends_add_up_to_infinity(method: str) -> None:
    lower, upper = bounds(network(([[-1e-38]], [1.0])), 2e38, 3e38, method)
    assert lower.item() == pytest.approx(-2.0, rel=1e-5)
    assert upper.item() == pytest.approx(-1.0, rel=1e-5)


@pytest.mark.parametrize("method", EVERY)
def test_a_value_beyond_the_largest_number(method: str) -> None:
    """The output is -1e40: nothing says that it lies above +inf, or anywhere above that."""
    net = network(([[1e30], [1e30]], [0.0, 0.0]), ([[1e10, -2e10]], [0.0]))
    try:
        lower, upper = bounds(net, 1.0, 1.0, method)
    except glsk.NumericalError:
        return
    assert lower.item() == -math.inf
    assert upper.item() <= -3e38 or upper.item() == math.inf


@pytest.mark.parametrize("method", EVERY)
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_a_hidden_unit_at_infinity_is_not_dead(method: str, sign: float) -> None:
    """[-inf, -inf] before a ReLU comes of an overflow, whatever its sign."""
    net = network(([[2e38]], [0.0]), ([[sign * 3e38]], [0.0]), ([[1.0]], [0.0]))
    with pytest.raises(glsk.NumericalError):
        bounds(net, 1.0, 1.1, method)


@pytest.mark.parametrize("method", METHODS)
def test_the_chain_op_says_nan(method: str) -> None:
    net = network(([[2e38]], [0.0]), ([[-3e38]], [0.0]), ([[1.0]], [0.0]))
    weights = [layer.weight[None, :, :, None, None] for layer in net[::2]]
    biases = [layer.bias[None] for layer in net[::2]]
    x, geometry = torch.ones(1, 1, 1), [*([1] * 10 + [0, 0, 1]) * 2, *([1] * 10 + [0, 0, 0])]
    found = chain_bounds(
        x, x, weights, biases, None, geometry, [0.0] * 3, method, False, True, False, backend="reference"
    )
    assert found[0].isnan().all()
    assert found[1].isnan().all()


@pytest.mark.parametrize("method", METHODS)
def test_gradients_near_the_largest_number_are_finite(method: str) -> None:
    net = network(([[2e38]], [0.0]), ([[-1e-38]], [1.0]))
    x_L = torch.tensor([[-1.0]], requires_grad=True)
    module = glsk.BoundedModule(net, (1,))
    lower, upper = module.compute_bounds(x_L=x_L, x_U=torch.tensor([[1.0]]), method=method, backend="reference")
    (lower + upper).sum().backward()
    assert x_L.grad.isfinite().all()
