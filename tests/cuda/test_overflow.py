"""The CUDA kernels, emulated, near the end of float32's range: right where ends are finite, and NaN where not."""

from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

import glsk
from glsk.geometry import encode, linear
from tests.cuda.lines import RULES, pass_by_lines
from tests.cuda.passes import Problem, chain, problem
from tests.cuda.test_backward import by_autograd
from tests.cuda.test_lines import operands
from tests.extremes import EXTREMES, NO_BOUNDS, network
from tests.support import assert_close

# Chains that each kernel serves, with rows of a specification or None.
SERVED = {
    "patch": (chain((1, 12, 11), [(3, 5, 2, 2), (5, 4, 2, 1)], None), None),
    "margins": (chain((1, 12, 11), [(3, 5, 2, 2), (5, 4, 2, 1)], 10), 9),
    "deep": (chain((1, 12, 12), [(16, 5, 2, 2), (16, 4, 2, 1)], 11), None),
    "general": (chain((2, 8, 7), [(3, 3, 1, 1), (5, 3, 2, 0)], 6), None),
}


def values(*numbers: float) -> Tensor:
    return torch.tensor(numbers)


@pytest.mark.parametrize("method", ["IBP", "CROWN-IBP", "CROWN"])
@pytest.mark.parametrize("name", EXTREMES)
def test_finite_ends(launcher: ModuleType, name: str, method: str) -> None:
    layers, (low, high), wanted = EXTREMES[name]
    bounded = glsk.BoundedModule(network(layers), (1,))
    found = bounded.compute_bounds(x_L=values(low)[None], x_U=values(high)[None], method=method, backend="cuda")
    torch.testing.assert_close(torch.stack(found).flatten(), torch.tensor(wanted), rtol=1e-5, atol=1e-5)


def wide(variant: str) -> Problem:
    """Hidden intervals and boxes whose width overflows, and weights that bring them back to an everyday size."""
    layers, rows = SERVED[variant]
    case = problem(layers, members=1, rows=rows)
    for k, (lower, upper) in enumerate(zip(case.lowers, case.uppers, strict=True)):
        size = torch.maximum(lower.abs(), upper.abs()).max() / 3e38
        case.lowers[k], case.uppers[k] = ((t / size).float().double() for t in (lower, upper))
        case.lowers[k][..., 0], case.uppers[k][..., 0] = -3e38, 2.9e38
    case.weights[-1] = (case.weights[-1] * 1e-35).float().double()
    return case


@pytest.mark.parametrize("signs", [1, 2])
@pytest.mark.parametrize("variant", SERVED)
def test_wide_hidden_intervals(launcher: ModuleType, variant: str, signs: int) -> None:
    case = wide(variant)
    for one, other in zip(case.run(launcher, signs, False, variant), case.reference(signs, False), strict=True):
        assert_close(one, other, 1e-4)


@pytest.mark.parametrize("variant", SERVED)
def test_wide_boxes(launcher: ModuleType, variant: str) -> None:
    case = problem(SERVED[variant][0], members=1, rows=SERVED[variant][1])
    case.x_L, case.x_U = (-(2 + x.abs()).clamp(max=3) * 1e38 for x in (case.x_L, case.x_U))
    case.x_U = -case.x_U
    case.x_L, case.x_U = case.x_L.float().double(), case.x_U.float().double()
    case.weights[0] = (case.weights[0] * 1e-35).float().double()
    for one, other in zip(case.run(launcher, 2, False, variant), case.reference(2, False), strict=True):
        assert_close(one, other, 1e-4)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("variant", SERVED)
@pytest.mark.parametrize(("low", "high"), NO_BOUNDS)
def test_no_finite_bound_comes_of_what_is_none(
    launcher: ModuleType, variant: str, low: float, high: float, rule: str
) -> None:
    if variant == "deep" and rule == "parallel":
        return
    layers, rows = SERVED[variant]
    case = problem(layers, members=1, samples=1, rows=rows)
    case.lowers[0][..., ::7], case.uppers[0][..., ::7] = low, high
    *some, _, _ = operands(case, None, torch.float32)
    leaks = [0.0] * len(layers)
    found = launcher.run_pass(*some, (None, None), encode(layers), leaks, rule, 2, variant)
    for bound in found:
        assert bound.isnan().all()


@pytest.mark.parametrize(("low", "high"), NO_BOUNDS)
def test_what_is_no_bound_stays_none(launcher: ModuleType, low: float, high: float) -> None:
    """An interval after a ReLU, and the hybrid zonotope's box."""
    lower, upper, one = values(low), values(high), values(1.0)
    assert all(t.isnan().all() for t in launcher.hbox_relu(one, one, lower, upper, 0.0))
    box = lower.view(1, 1, 1), upper.view(1, 1, 1)
    found = launcher.ibp_affine(*box, torch.ones(1, 1, 1, 1, 1), one[None], list(linear(1, 1, True)), True, 0.0)
    assert not (found[0].isfinite() & found[1].isfinite()).any()


def test_a_coefficient_that_overflows_is_no_wrong_number(launcher: ModuleType) -> None:
    net = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    net[0].weight.data[:, 0] = values(1e30, 1e30)
    net[2].weight.data[0] = values(1e10, -2e10)
    one = values(1.0)[None]
    for method in ("IBP", "CROWN-IBP", "CROWN"):
        options = {"method": method, "backend": "cuda", "check_finite": False}
        lower, upper = glsk.BoundedModule(net, (1,)).compute_bounds(x_L=one, x_U=one, **options)
        assert not lower.isfinite().any()
        assert not upper.isfinite().any()


def test_the_gradient_of_wide_intervals(backward: ModuleType) -> None:
    """Finite and right, of the bounds too, on which nothing depends much."""
    case = wide("general")
    given = [*operands(case), encode(case.layers), [0.0] * len(case.layers), "adaptive", True]
    with torch.no_grad():
        grads = tuple(0.05 * torch.randn_like(bound) for bound in pass_by_lines(*given))
    wanted = by_autograd(pass_by_lines, given, grads)
    cast = [[t.float() for t in v] if isinstance(v, list) and torch.is_tensor(v[0]) else v for v in given]
    cast[:2] = cast[0].float(), cast[1].float()
    found = backward.crown_pass(cast, (), tuple(g.float() for g in grads), [True] * len(wanted))
    for one, other in zip(found, wanted, strict=True):
        if other.numel():
            assert (one.double() - other).abs().max() <= 1e-4 * other.abs().max()
