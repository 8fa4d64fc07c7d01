"""Slack against rational arithmetic: what was computed, less the slack, holds exactly."""

import itertools
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import glsk
from glsk.verify.margins import held
from glsk.verify.rounding import Rounding, outward_ball
from tests.support import CPU_BACKENDS
from tests.verify.exact import Exact, ranges, rational

METHODS = tuple(glsk.methods())


def random_net(seed: int, sizes: tuple[int, ...], spread: float = 0.0, leak: float = 0.0) -> nn.Sequential:
    """Weights whose magnitudes differ by 2^spread, up and down."""
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for n, m in itertools.pairwise(sizes):
        linear = nn.Linear(n, m, dtype=torch.float64)
        for tensor in (linear.weight, linear.bias):
            scale = 2.0 ** (spread * (2 * torch.rand(tensor.shape, generator=generator, dtype=torch.float64) - 1))
            tensor.data = torch.randn(tensor.shape, generator=generator, dtype=torch.float64) * scale
        layers += [linear, nn.LeakyReLU(leak) if leak else nn.ReLU()]
    return nn.Sequential(*layers[:-1]).requires_grad_(False)


def random_box(seed: int, n: int, radius: float) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1000 + seed)
    center = torch.randn(1, n, generator=generator, dtype=torch.float64)
    return center - radius, center + radius


def test_attained_bounds_are_off_by_less_than_the_slack_and_by_more_than_nothing() -> None:
    """A linear net's bound is attained at a corner, so any error of it is one of rounding."""
    above = 0
    for seed in range(40):
        net = random_net(seed, (30, 3), spread=20.0)
        low, high = random_box(seed, 30, 0.1)
        bounded = glsk.BoundedModule(net, (30,))
        C = torch.tensor([[1.0, -1.0, 0.0], [1.0, 0.0, -1.0]], dtype=torch.float64)
        lower, _ = bounded.compute_bounds(x_L=low, x_U=high, C=C, method="CROWN")
        slack = Rounding(bounded, low, high).rows(C)
        exact = Exact(net)
        for i, row in enumerate(C):
            truth = exact.formula(rational(row), [], rational(low[0]), rational(high[0]), "adaptive")
            assert Fraction(float(lower[0, i])) - Fraction(float(slack[0, i])) <= truth
            above += Fraction(float(lower[0, i])) > truth
    assert above > 10  # the plain bound is above the exact minimum as often as not


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("leak", [0.0, 0.1])
@pytest.mark.parametrize(("rule", "method"), [("adaptive", "CROWN"), ("parallel", "DeepZ")])
def test_a_pass_is_its_formula_up_to_the_slack(rule: str, method: str, leak: float, backend: str) -> None:
    for seed in range(12):
        net = random_net(seed, (4, 6, 5, 3), spread=3.0 * (seed % 4), leak=leak)
        low, high = random_box(seed, 4, 0.2)
        bounded = glsk.BoundedModule(net, (4,))
        hidden = bounded.intermediate_bounds(x_L=low, x_U=high, method=method, backend=backend)
        C = torch.tensor([[1.0, -1.0, 0.0], [0.5, 3.0, -1.0]], dtype=torch.float64)
        query: dict[str, Any] = {"intermediate": hidden, "intermediate_mode": "replace", "backend": backend}
        lower, _ = bounded.compute_bounds(x_L=low, x_U=high, C=C, method=method, **query)
        slack = Rounding(bounded, low, high).rows(C, widened=True)
        given = [(rational(low_[0]), rational(high_[0])) for low_, high_ in hidden.values()]
        for i, row in enumerate(C):
            wanted = Exact(net).formula(rational(row), given, rational(low[0]), rational(high[0]), rule)
            assert abs(Fraction(float(lower[0, i])) - wanted) <= Fraction(float(slack[0, i]))


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("method", METHODS)
def test_every_hidden_bound_and_margin_holds_exactly(method: str, backend: str) -> None:
    """On a segment the exact range of every unit is known."""
    for seed in range(10):
        net = random_net(seed, (3, 5, 6, 4, 3), spread=float(seed), leak=0.25 * (seed % 2))
        low, high = random_box(seed, 3, 0.1)
        high[0, 1:] = low[0, 1:]
        bounded = glsk.BoundedModule(net, (3,))
        rounding = Rounding(bounded, low, high)
        truth = ranges(Exact(net), rational(low[0]), rational(high[0]))
        hidden = bounded.intermediate_bounds(x_L=low, x_U=high, method=method, backend=backend)
        for k, (lower, upper) in enumerate(hidden.values()):
            assert_within(truth[k], lower[0], upper[0], rounding.hidden(k)[0])
        C = torch.eye(3, dtype=torch.float64)
        lower, upper = bounded.compute_bounds(x_L=low, x_U=high, C=C, method=method, backend=backend)
        assert_within(truth[-1], lower[0], upper[0], rounding.rows(C)[0])


def assert_within(truth: list[tuple[Fraction, Fraction]], lower: Tensor, upper: Tensor, slack: Tensor) -> None:
    for (low, high), a, b, by in zip(truth, rational(lower), rational(upper), rational(slack), strict=True):
        assert a - by <= low
        assert high <= b + by


def test_a_point_is_where_only_rounding_is_left() -> None:
    """On a box of one point every method is exact but for rounding, and the plain bound is often on the wrong side."""
    wrong = 0
    for seed in range(30):
        net = random_net(seed, (8, 8, 8, 1), spread=12.0)
        x, _ = random_box(seed, 8, 0.0)
        bounded = glsk.BoundedModule(net, (8,))
        truth = Exact(net).values(rational(x[0]))[-1][0]
        C = torch.ones(1, 1, dtype=torch.float64)
        slack = Fraction(float(Rounding(bounded, x, x).rows(C)))
        for method in METHODS:
            lower, upper = bounded.compute_bounds(x_L=x, x_U=x, C=C, method=method)
            assert Fraction(float(lower)) - slack <= truth <= Fraction(float(upper)) + slack
            wrong += Fraction(float(lower)) > truth
    assert wrong > 20


def test_overflow_is_never_certified() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)).double().requires_grad_(False)
    for parameter in net.parameters():
        parameter.data.fill_(1e200)
    x = torch.ones(1, 2, dtype=torch.float64)
    slack = Rounding(glsk.BoundedModule(net, (2,)), x, x).rows(torch.ones(1, 1, dtype=torch.float64))
    assert slack.item() == torch.inf
    inf, nan, one, big = (torch.tensor(v, dtype=torch.float64) for v in (torch.inf, torch.nan, 1.0, 1e300))
    for lower, by in ((big, slack), (inf, one), (nan, one), (one, nan), (one, inf)):
        assert held(lower, by).item() == -torch.inf
    assert held(2 * one, one).item() == 1


def test_the_outward_ball_holds_the_exact_one() -> None:
    x = torch.rand(1, 500, dtype=torch.float64)
    lower, upper = outward_ball(x, 0.1)
    inward = 0
    for a, low, high, plain in zip(*map(rational, (x[0], lower[0], upper[0], (x - 0.1)[0])), strict=True):
        assert low <= a - Fraction(0.1)
        assert a + Fraction(0.1) <= high
        inward += plain > a - Fraction(0.1)
    assert inward > 100
    clipped, _ = outward_ball(x, 0.1, (0.0, 1.0))
    assert clipped.min() == 0


def test_float32_is_refused() -> None:
    net = nn.Sequential(nn.Linear(2, 2))
    x = torch.zeros(1, 2)
    with pytest.raises(ValueError, match="float64 only"):
        Rounding(glsk.BoundedModule(net, (2,)), x, x)
