"""Counterexamples in real arithmetic."""

from fractions import Fraction

import torch
from torch import Tensor, nn

import glsk
from glsk.verify.magnitudes import Magnitudes
from glsk.verify.witness import exact_outputs, exactly_evaluated, unsafe
from tests.verify.exact import Exact, border, rational
from tests.verify.test_rounding import random_net
from tests.verify.test_sound_layers import folded_case, scrambled


def conv_net(seed: int) -> nn.Sequential:
    layers = (nn.Conv2d(2, 3, (2, 3), stride=(2, 1), padding=(1, 0)), nn.LeakyReLU(0.1), nn.Flatten(), nn.Linear(18, 2))
    return scrambled(nn.Sequential(*layers), seed)


def half(value: float) -> Tensor:
    return torch.tensor([[value]], dtype=torch.float64)


def test_whole_numbers_are_rational_ones() -> None:
    for seed in range(4):
        net, x = conv_net(seed), torch.rand(1, 2, 3, 5, generator=torch.Generator().manual_seed(seed)).double()
        found = Magnitudes.of(glsk.BoundedModule(net, (2, 3, 5)), x)
        values, power = exact_outputs(found.chain, found.population, x[0])
        wanted = Exact(net, (2, 3, 5)).values(rational(x.flatten()))[-1]
        assert [Fraction(v, 1 << power) for v in values] == wanted


def test_at_the_border_the_verdict_is_that_of_real_arithmetic() -> None:
    """Where float64's own outputs say the contrary as often as not."""
    A, contrary = torch.ones(1, 1, 1, dtype=torch.float64), 0
    for seed in range(30):
        net = random_net(seed, (4, 6, 5, 1), spread=6.0)
        x = torch.randn(1, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        bounded, truth = glsk.BoundedModule(net, (4,)), Exact(net).values(rational(x[0]))[-1][0]
        below, above = border(truth)
        assert unsafe(bounded, x, A, half(above))
        assert bool(unsafe(bounded, x, A, half(below))) == (Fraction(below) == truth)
        contrary += (float(net(x)) <= below) + (float(net(x)) > above)
    assert contrary > 5


def test_what_whole_numbers_do_not_say_must_be_clear() -> None:
    net, x, outputs = folded_case(0)
    bounded = glsk.BoundedModule(net, (2, 3, 3))
    assert not exactly_evaluated(bounded.chain)
    A = torch.tensor([[[1.0, 0.0]]], dtype=torch.float64)
    below, above = border(outputs[0])
    size = abs(above) + 1
    assert unsafe(bounded, x, A, half(above + 1e-6 * size))
    for end in (above, below, above - 1e-6 * size):
        assert not unsafe(bounded, x, A, half(end))


def test_all_rows_must_be_met() -> None:
    net = random_net(0, (2, 3, 2))
    x = torch.zeros(3, 2, dtype=torch.float64)
    y = net(x[:1])[0]
    A = torch.eye(2, dtype=torch.float64).expand(3, -1, -1)
    b = torch.stack((y + 1, y + torch.tensor([1.0, -1.0]), y - 1))
    assert unsafe(glsk.BoundedModule(net, (2,)), x, A, b).tolist() == [True, False, False]


def test_whole_numbers_do_not_overflow() -> None:
    net = random_net(0, (2, 3, 2))
    for parameter in net.parameters():
        parameter.fill_(1e200)
    x, A = torch.ones(2, 2, dtype=torch.float64), torch.ones(2, 1, 2, dtype=torch.float64)
    A[0] = -1
    assert unsafe(glsk.BoundedModule(net, (2,)), x, A, torch.zeros(2, 1).double()).tolist() == [True, False]
