"""Every layer type and both ways a split is bounded, against rational arithmetic."""

from fractions import Fraction
from functools import cache

import pytest
import torch
from torch import Tensor, nn

import glsk
from glsk.bounds.subproblems import Roots
from glsk.verify.rounding import Rounding
from tests.support import CPU_BACKENDS
from tests.verify.exact import Exact, kinks, rational
from tests.verify.test_rounding import random_box, random_net

METHODS = tuple(glsk.methods())


def scrambled(net: nn.Sequential, seed: int) -> nn.Sequential:
    """Random weights and statistics whose magnitudes differ by up to 2^12; every float32, as stored networks are."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in (*net.named_parameters(), *net.named_buffers()):
        if not tensor.is_floating_point():
            continue
        spread = 2.0 ** torch.randint(-6, 7, tensor.shape, generator=generator)
        values = torch.randn(tensor.shape, generator=generator) * spread
        tensor.data = values.abs() if name.endswith(("var", "std")) else values
    return net.eval().double().requires_grad_(False)


def folded() -> nn.Sequential:
    layers = (glsk.Normalize([0.1, 0.2], [0.3, 0.4]), nn.Conv2d(2, 3, 2, padding=1), nn.BatchNorm2d(3), nn.ReLU())
    more = (nn.AvgPool2d(3), nn.LeakyReLU(0.1), nn.Conv2d(3, 2, 1, bias=False), nn.BatchNorm2d(2, affine=False))
    return nn.Sequential(*layers, *more, nn.ReLU(), nn.Flatten(), nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


@cache
def folded_case(seed: int) -> tuple[nn.Sequential, Tensor, list[Fraction]]:
    """A net, a point, and the exact outputs there: with Normalize, BatchNorm and pools unfolded."""
    net = scrambled(folded(), seed)
    x = torch.rand(1, 2, 3, 3, generator=torch.Generator().manual_seed(seed)).double()
    return net, x, Exact(net, (2, 3, 3)).values(rational(x.flatten()))[-1]


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("method", METHODS)
def test_what_is_folded_is_within_the_slack(method: str, backend: str) -> None:
    """At a point all bounds are values."""
    wrong = 0
    for seed in range(5):
        net, x, outputs = folded_case(seed)
        bounded = glsk.BoundedModule(net, (2, 3, 3))
        C = torch.tensor([[1.0, -1.0], [0.1, 0.7]], dtype=torch.float64)
        lower, upper = bounded.compute_bounds(x_L=x, x_U=x, C=C, method=method, backend=backend, iterations=3)
        slack = rational(Rounding(bounded, x, x).rows(C)[0])
        for row, low, high, by in zip(C, rational(lower[0]), rational(upper[0]), slack, strict=True):
            truth = sum(a * b for a, b in zip(rational(row), outputs, strict=True))
            assert low - by <= truth <= high + by
            wrong += low > truth or high < truth
    assert wrong > 0


def subproblem(seed: int, backend: str) -> tuple[nn.Sequential, Roots, Tensor, Tensor, Tensor, Rounding]:
    """A net, its root bounds moved outward on a segment, random splits, and the rounding of both."""
    net = random_net(seed, (3, 5, 6, 4, 2), spread=float(seed % 5), leak=0.25 * (seed % 2))
    low, high = random_box(seed, 3, 0.5)
    high[0, 1:] = low[0, 1:]
    bounded = glsk.BoundedModule(net, (3,))
    computed = Roots.of(bounded, low, high, backend=backend)
    hidden = {name: (computed.lower[:, u], computed.upper[:, u]) for name, u in computed.units.items()}
    rounding = Rounding(bounded, low, high, intermediate=hidden)
    by = rounding.packed()
    roots = Roots.of(
        bounded,
        low,
        high,
        hidden={
            n: (a - by[:, u], b + by[:, u])
            for (n, (a, b)), u in zip(hidden.items(), computed.units.values(), strict=True)
        },
        backend=backend,
    )
    unstable = (roots.lower < 0) & (roots.upper > 0)
    generator = torch.Generator().manual_seed(seed)
    splits = (torch.randint(-1, 2, unstable.shape, generator=generator) * unstable).to(torch.int8)
    return net, roots, low, high, splits, rounding


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_bounds_of_subproblems_hold_exactly(backend: str) -> None:
    """Against the exact minimum over the inputs that meet the splits, and against their own formula."""
    C = torch.tensor([[[1.0, -1.0], [0.3, 1.0]]], dtype=torch.float64)
    met = 0
    for seed in range(15):
        net, roots, low, high, splits, rounding = subproblem(seed, backend)
        if not splits.any():
            continue
        duals = roots.bound(C, splits=splits, iterations=8).duals
        assert duals is not None
        lower = roots.bound(C, splits=splits, start=duals, iterations=1).lower
        beta = (duals * (splits != 0)[:, None] * rounding.packed()[:, None]).sum(-1)
        slack = rounding.rows(C, multipliers=beta, widened=True)
        exact, signs = Exact(net), [list(s) for s in splits[0].split([u.stop - u.start for u in roots.units.values()])]
        signs = [[int(s) for s in layer] for layer in signs]
        inside = [
            v
            for v in kinks(exact, rational(low[0]), rational(high[0]))
            if all(s * y >= 0 for layer, ys in zip(signs, v, strict=False) for s, y in zip(layer, ys, strict=True))
        ]
        met += bool(inside)
        ends = [(rational(roots.lower[0, u]), rational(roots.upper[0, u])) for u in roots.units.values()]
        for i, row in enumerate(C[0]):
            given = [rational(duals[0, i, u]) for u in roots.units.values()]
            box = rational(low[0]), rational(high[0])
            formula = exact.formula(rational(row), ends, *box, "duals", given, signs)
            computed, by = Fraction(float(lower[0, i])), Fraction(float(slack[0, i]))
            assert abs(computed - formula) <= by
            for v in inside:
                assert computed - by <= sum(a * b for a, b in zip(rational(row), v[-1], strict=True))
    assert met > 3
