"""No network whose exact margin is 0 or less is certified, however small the float64 error that would have done it."""

import itertools
import math
import time
from fractions import Fraction

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import glsk
from glsk.verify import Property, VerifySettings, verify
from glsk.verify.margins import certified_rows, lower_margins
from glsk.verify.rounding import Rounding
from tests.verify.exact import Exact, border, ranges, rational
from tests.verify.test_rounding import random_net

ZERO = torch.zeros(1, dtype=torch.long)


def one_output(net: nn.Sequential) -> nn.Sequential:
    """With a second output that is 0: the margin of class 0 is the first."""
    last = net[-1]
    two = nn.Linear(last.in_features, 2, dtype=torch.float64)
    two.weight.data = torch.cat((last.weight, torch.zeros_like(last.weight))).detach()
    two.bias.data = torch.cat((last.bias, torch.zeros_like(last.bias))).detach()
    return nn.Sequential(*net[:-1], two).requires_grad_(False)


def just_not_positive(net: nn.Sequential, low: Tensor, high: Tensor) -> tuple[nn.Sequential, Fraction]:
    """The net with its last bias such that its exact minimum on the segment is at most 0, and that by little."""
    net[-1].bias.data.zero_()
    least = ranges(Exact(net), rational(low[0]), rational(high[0]))[-1][0][0]
    bias = float(-least)
    if Fraction(bias) + least > 0:
        bias = math.nextafter(bias, -math.inf)
    net[-1].bias.data.fill_(bias)
    return net, Fraction(bias) + least


def plain_and_held(net: nn.Sequential, x: Tensor, radius: float, method: str) -> tuple[float, bool]:
    """The computed bound of the margin, and whether it is certified, around x [1, n]."""
    bounded = glsk.BoundedModule(one_output(net), x.shape[1:])
    how = {"eps": radius, "method": method, "num_classes": 2, "backend": "auto", "clip": (-1e300, 1e300)}
    C = glsk.margins(ZERO, 2).double()
    plain, _ = bounded.compute_bounds(x, eps=radius, C=C, method=method, bound_upper=False)
    return float(plain), bool(certified_rows(lower_margins(bounded, x, ZERO, **how)))


@pytest.mark.parametrize("method", glsk.methods())
def test_float64_alone_would_have_certified_what_is_not_so(method: str) -> None:
    generator = torch.Generator().manual_seed(3)
    wrong = 0
    for _ in range(60):
        net = nn.Sequential(nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 1)).double().requires_grad_(False)
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        x = torch.randn(1, 12, generator=generator, dtype=torch.float64)
        net, margin = just_not_positive(net, x, x)
        assert margin <= 0
        plain, held = plain_and_held(net, x, 0.0, method)
        wrong += plain > 0
        assert not held
    assert wrong >= 3


@pytest.mark.parametrize("method", glsk.methods())
def test_a_margin_above_the_slack_is_certified(method: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 1)).double().requires_grad_(False)
    x = torch.randn(1, 12, dtype=torch.float64)
    net, _ = just_not_positive(net, x, x)
    net[-1].bias += 1e-10
    assert plain_and_held(net, x, 0.0, method)[1]


SIZES = st.sampled_from([0.0, 1.0, 0.1, 1 / 3, 3.0, 1e-30, 1e30, 1e8, 1e-8, 1 + 2.0**-52, 1e-310, 5e-324, 2.0**-537])
NUMBERS = st.builds(lambda size, sign: size * sign, SIZES, st.sampled_from([1.0, -1.0]))


@st.composite
def networks(draw: st.DrawFn) -> nn.Sequential:
    """Weights of wildly different sizes, ties and zeros."""
    sizes = [draw(st.integers(1, 4)) for _ in range(draw(st.integers(1, 3)))]
    layers: list[nn.Module] = []
    for n, m in zip(sizes, [*sizes[1:], 1], strict=True):
        linear = nn.Linear(n, m, dtype=torch.float64)
        for tensor in (linear.weight, linear.bias):
            numbers = draw(st.lists(NUMBERS, min_size=tensor.numel(), max_size=tensor.numel()))
            tensor.data = torch.tensor(numbers, dtype=torch.float64).view(tensor.shape)
        layers += [linear, draw(st.sampled_from([nn.ReLU(), nn.LeakyReLU(0.01), nn.LeakyReLU(1e-300)]))]
    return nn.Sequential(*layers[:-1]).requires_grad_(False)


@settings(max_examples=60)
@given(networks(), st.data(), st.sampled_from(glsk.methods()), st.sampled_from([0.0, 1e-20, 0.1, 1.0]), st.booleans())
def test_hunted(net: nn.Sequential, data: st.DataObject, method: str, radius: float, flush: bool) -> None:
    """Boxes are balls around an x; the exact minimum is known at the ends of a diagonal of the box and in between."""
    n = net[0].in_features
    x = torch.tensor([data.draw(st.lists(NUMBERS, min_size=n, max_size=n))], dtype=torch.float64)
    low, high = [[f + s * Fraction(radius) for f in rational(x[0])] for s in (-1, 1)]
    net[-1].bias.data.zero_()
    least = ranges(Exact(net), low, high)[-1][0][0]
    assume(abs(least) < 1e290)
    bias = float(-least)
    if Fraction(bias) + least > 0:
        bias = math.nextafter(bias, -math.inf)
    net[-1].bias.data.fill_(bias)
    torch.set_flush_denormal(flush)
    try:
        held = plain_and_held(net, x, radius, method)[1]
    except glsk.NumericalError:
        held = False
    finally:
        torch.set_flush_denormal(False)
    assert not held


@pytest.mark.parametrize("method", [name for name in glsk.methods() if name != "HBox"])
def test_in_a_deep_network_the_slack_is_looked_at_closer(method: str) -> None:
    """A margin that the slack of one forward pass hides, and that of bounds moved outward does not."""
    generator = torch.Generator().manual_seed(0)
    sizes = [20, *[60] * 9, 1]
    layers: list[nn.Module] = []
    for n, m in itertools.pairwise(sizes):
        layers += [nn.Linear(n, m, dtype=torch.float64), nn.ReLU()]
        layers[-2].weight.data = torch.randn(m, n, generator=generator, dtype=torch.float64) / n**0.5
        layers[-2].bias.data.zero_()
    net = one_output(nn.Sequential(*layers[:-1]))
    x = torch.rand(1, 20, generator=generator, dtype=torch.float64)
    net[-1].bias[0] = 1e-4 - net(x)[0, 0]
    bounded = glsk.BoundedModule(net, (20,))
    how = {"eps": 1e-9, "method": method, "num_classes": 2, "backend": "auto", "clip": (0.0, 1.0)}
    assert Rounding(bounded, x, x).rows(glsk.margins(ZERO, 2).double()) > 1e-3
    assert certified_rows(lower_margins(bounded, x, ZERO, **how))
    net[-1].bias[0] -= 2e-4
    assert not certified_rows(lower_margins(bounded, x, ZERO, **how))


def test_complete_verdicts_at_the_border_are_never_the_wrong_one() -> None:
    """The least output on a segment, exactly, and the floats on both sides of it."""
    statuses = set()
    for seed in range(4):
        net = random_net(seed, (2, 5, 4, 1), spread=float(seed % 4))
        low = torch.randn(1, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        high = low + torch.tensor([[1.0, 0.0]], dtype=torch.float64)
        least = ranges(Exact(net), rational(low[0]), rational(high[0]))[-1][0][0]
        below, above = border(least)
        for end, violated in (
            (below, Fraction(below) == least),
            (above, True),
            (below - 1e-6 * (1 + abs(below)), False),
        ):
            found = Property(((low[0], high[0]),), ((torch.ones(1, 1), torch.tensor([end], dtype=torch.float64)),))
            settings = VerifySettings(input_dimensions=0, clock=time.process_time)
            status = verify(glsk.BoundedModule(net, (2,)), found, timeout=0.3, settings=settings).status
            assert status != ("unsat" if violated else "sat")
            statuses.add(status)
    assert {"sat", "unsat"} <= statuses
