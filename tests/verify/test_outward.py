"""Hidden bounds that are moved outward as they are computed, against rational arithmetic."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

import glsk
from glsk.geometry import Geometry
from glsk.verify.norms import spectral
from glsk.verify.outward import METHODS, hidden_and_rows
from glsk.verify.rounding import Rounding
from tests.oracle import conv_matrix
from tests.support import CPU_BACKENDS
from tests.verify.exact import Exact, ranges, rational
from tests.verify.test_rounding import random_box, random_net
from tests.verify.test_sound_layers import folded_case


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("method", METHODS)
def test_hidden_bounds_and_margins_hold_as_they_are(method: str, backend: str) -> None:
    C = torch.tensor([[1.0, 0.0, 0.0], [1.0, -1.0, 0.0]], dtype=torch.float64)
    for seed in range(10):
        net = random_net(seed, (3, 5, 6, 4, 3), spread=float(seed), leak=0.25 * (seed % 2))
        low, high = random_box(seed, 3, 0.1 * (seed % 3))
        high[0, 1:] = low[0, 1:]
        bounded = glsk.BoundedModule(net, (3,))
        outward, lower = hidden_and_rows(bounded, low, high, C, method=method, backend=backend)
        truth = ranges(Exact(net), rational(low[0]), rational(high[0]))
        for k, (a, b) in outward.found.items():
            for (least, most), one, other in zip(truth[k], rational(a[0, 0]), rational(b[0, 0]), strict=True):
                assert one <= least
                assert most <= other
        assert list(outward.found) == [0, 1, 2]
        assert Fraction(float(lower[0, 0])) <= truth[-1][0][0]


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize(("rule", "method"), [("adaptive", "CROWN"), ("parallel", "DeepZ")])
def test_a_pass_is_its_formula_up_to_the_slack(rule: str, method: str, backend: str) -> None:
    C = torch.tensor([[1.0, -1.0, 0.0], [0.5, 3.0, -1.0]], dtype=torch.float64)
    for seed in range(10):
        net = random_net(seed, (4, 6, 5, 3), spread=3.0 * (seed % 4), leak=0.1 * (seed % 2))
        low, high = random_box(seed, 4, 0.2)
        bounded = glsk.BoundedModule(net, (4,))
        outward, lower = hidden_and_rows(bounded, low, high, C, method=method, backend=backend)
        slack = outward.rows(C)
        given = [(rational(a[0, 0]), rational(b[0, 0])) for a, b in outward.found.values()]
        for i, row in enumerate(C):
            wanted = Exact(net).formula(rational(row), given, rational(low[0]), rational(high[0]), rule)
            assert wanted - 2 * Fraction(float(slack[0, i])) <= Fraction(float(lower[0, i])) <= wanted


@pytest.mark.parametrize("method", METHODS)
def test_folded_layers(method: str) -> None:
    for seed in range(3):
        net, x, outputs = folded_case(seed)
        C = torch.tensor([[1.0, -1.0], [0.0, 1.0]], dtype=torch.float64)
        _, lower = hidden_and_rows(glsk.BoundedModule(net, (2, 3, 3)), x, x, C, method=method)
        for row, low in zip(C, rational(lower[0]), strict=True):
            assert low <= sum(a * b for a, b in zip(rational(row), outputs, strict=True))


def test_the_slack_of_a_deep_network_stays_small() -> None:
    net = random_net(0, (20, *[60] * 9, 3))
    for module in net:
        if isinstance(module, nn.Linear):
            module.weight /= module.in_features**0.5
    low, high = random_box(0, 20, 1e-3)
    bounded, C = glsk.BoundedModule(net, (20,)), torch.eye(3, dtype=torch.float64)
    outward, _ = hidden_and_rows(bounded, low, high, C)
    assert outward.rows(C).max() < 1e-8 < 1e-4 < Rounding(bounded, low, high).rows(C).max()


def test_other_methods_are_refused() -> None:
    net = random_net(0, (2, 3, 2))
    low, high = random_box(0, 2, 0.1)
    with pytest.raises(ValueError, match="HBox"):
        hidden_and_rows(glsk.BoundedModule(net, (2,)), low, high, None, method="HBox")


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1])
def test_spectral_norms_are_bounded_closely(stride: int, padding: int) -> None:
    generator = torch.Generator().manual_seed(stride)
    weight = torch.randn(4, 3, 3, 2, generator=generator, dtype=torch.float64)
    size = [(7 + 2 * padding - k) // stride + 1 for k in (3, 2)]
    layer = Geometry(3, 7, 7, 4, *size, 3, 2, stride, stride, padding, padding, 1)
    dense = conv_matrix(weight.numpy(), (7, 7), (stride, stride), (padding, padding))
    true = np.linalg.norm(dense, 2)
    assert true <= spectral(weight, layer) <= 4 * true
    matrix = torch.randn(30, 50, generator=generator, dtype=torch.float64)
    linear = Geometry(50, 1, 1, 30, 1, 1, 1, 1, 1, 1, 0, 0, 1)
    true = np.linalg.norm(matrix.numpy(), 2)
    assert true < spectral(matrix[:, :, None, None], linear) < 1.2 * true
    assert 0 < spectral(0 * matrix[:, :, None, None], linear) < 1e-200
