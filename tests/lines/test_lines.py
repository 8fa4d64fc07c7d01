"""Lines enclose their activation, touch it where they should, and are NaN where bounds are not finite."""

import math

import pytest
import torch
from torch import Tensor

from glsk import lines, ops

ENCLOSING = ("adaptive", "parallel")
LEAKS = (0.0, 0.01, 0.4, 1.0)


def bounds(count: int = 300) -> tuple[Tensor, Tensor]:
    lower = torch.randn(2, count, dtype=torch.float64)
    return lower, lower + 2 * torch.rand(2, count, dtype=torch.float64)


def assert_encloses(made: Tensor, lower: Tensor, upper: Tensor, leak: float) -> None:
    low_slope, low_intercept, up_slope, up_intercept = made.unbind(-2)
    for t in torch.linspace(0, 1, 21, dtype=torch.float64):
        z = lower + t * (upper - lower)
        value = torch.where(z >= 0, z, leak * z)
        assert (low_slope * z + low_intercept <= value + 1e-12).all()
        assert (up_slope * z + up_intercept >= value - 1e-12).all()


@pytest.mark.parametrize("leak", LEAKS)
@pytest.mark.parametrize("rule", ENCLOSING)
def test_they_enclose_the_activation(rule: str, leak: float) -> None:
    lower, upper = bounds()
    made = lines.make(rule, lower, upper, leak)
    assert made.shape == (2, 4, 300)
    assert_encloses(made, lower, upper, leak)


@pytest.mark.parametrize("leak", LEAKS)
def test_free_slopes_enclose_it_whatever_they_are(leak: float) -> None:
    lower, upper = bounds()
    alpha = torch.rand(5, 2, 300, dtype=torch.float64)
    made = lines.leaky(lines.free(lower, upper, alpha), leak)
    assert made.shape == (5, 2, 4, 300)
    assert_encloses(made, lower, upper, leak)
    unstable = (lower < 0) & (upper > 0)
    assert torch.equal(lines.free(lower, upper, alpha)[3, :, 0][unstable], alpha[3][unstable])


# lower, upper -> lower slope, lower intercept, upper slope, upper intercept
EXAMPLES = {
    "adaptive": [((-1, 3), (1, 0, 0.75, 0.75)), ((-3, 1), (0, 0, 0.25, 0.75)), ((-2, 2), (0, 0, 0.5, 1))],
    "parallel": [((-1, 3), (0.75, 0, 0.75, 0.75)), ((-3, 1), (0.25, 0, 0.25, 0.75))],
    "mask": [((-1, 3), (0, 0, 0, 0)), ((0, 3), (1, 0, 1, 0))],
}
STABLE = [((1, 3), (1, 0, 1, 0)), ((-3, -1), (0, 0, 0, 0)), ((0, 0), (1, 0, 1, 0)), ((-3, 0), (0, 0, 0, 0))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rule", lines.RULES)
def test_examples(rule: str, dtype: torch.dtype) -> None:
    for (lower, upper), wanted in EXAMPLES[rule] + STABLE:
        made = lines.make(rule, torch.tensor([lower], dtype=dtype), torch.tensor([upper], dtype=dtype))
        assert torch.equal(made[:, 0], torch.tensor(wanted, dtype=dtype)), (lower, upper)


def test_a_leak_mixes_in_the_identity() -> None:
    made = lines.make("adaptive", torch.tensor([-1.0]), torch.tensor([3.0]), 0.5)
    assert torch.equal(made[:, 0], torch.tensor([1.0, 0.0, 0.875, 0.375]))


@pytest.mark.parametrize(("lower", "upper"), [(-2e38, 2e38), (-3e38, 1e38), (-1e-45, 1e-45), (-1e-45, 3e38)])
def test_widths_that_overflow_and_the_smallest_numbers(lower: float, upper: float) -> None:
    ends = [torch.tensor([end], dtype=torch.float32) for end in (lower, upper)]
    exact = lines.adaptive(*(end.double() for end in ends))
    assert torch.allclose(lines.adaptive(*ends).double(), exact, rtol=1e-6, atol=1.5e-45)


NOT_FINITE = [
    (-math.inf, -math.inf),
    (-math.inf, -1.0),
    (-math.inf, 1.0),
    (-1.0, math.inf),
    (1.0, math.inf),
    (math.inf, math.inf),
    (-math.inf, math.inf),
    (math.nan, 1.0),
    (-1.0, math.nan),
]


@pytest.mark.parametrize("rule", lines.RULES)
@pytest.mark.parametrize(("lower", "upper"), NOT_FINITE)
def test_bounds_that_are_not_finite_give_no_lines(rule: str, lower: float, upper: float) -> None:
    made = lines.make(rule, torch.tensor([lower, -1.0]), torch.tensor([upper, 1.0]), 0.1)
    assert made[:, 0].isnan().all()
    assert made[:, 1].isfinite().all()


@pytest.mark.parametrize(("lower", "upper"), NOT_FINITE)
def test_an_interval_with_an_infinite_end_does_not_become_a_dead_unit(lower: float, upper: float) -> None:
    low, high = torch.full((1, 1, 1), lower), torch.full((1, 1, 1), upper)
    one, zero = torch.ones(1, 1, 1, 1, 1), torch.zeros(1, 1)
    found = ops.ibp_affine(low, high, one, zero, [1] * 10 + [0, 0, 0], True, 0.0, backend="reference")
    assert all(end.isnan().all() for end in found)
    found = ops.hbox_relu(low, high, low, high, 0.0, backend="reference")
    assert all(end.isnan().all() for end in found)


@pytest.mark.parametrize("rule", lines.RULES)
def test_gradients_of_unused_branches_stay_finite(rule: str) -> None:
    """Zero widths, signed zeros, huge and infinite bounds: 0 * inf in a branch that is not taken would be NaN."""
    ends = torch.tensor([0.0, -0.0, 1.0, -1.0, 3e38, -3e38, math.inf, -math.inf, 1e-45])
    lower, upper = (t.clone().requires_grad_() for t in torch.cartesian_prod(ends, ends).T)
    made = lines.make(rule, lower, upper)
    if made.requires_grad:
        made.nan_to_num(0.0).sum().backward()
        usable = lower.isfinite() & upper.isfinite() & (lower <= upper)
        stable = usable & ((lower >= 0) | (upper <= 0))
        assert lower.grad[stable].isfinite().all()
        assert upper.grad[stable].isfinite().all()
        assert lower.grad[~lower.isfinite() | ~upper.isfinite()].isfinite().all()


def test_the_op_has_the_lines_of_crown() -> None:
    lower, upper = bounds()
    low_slope, _, up_slope, intercept = lines.adaptive(lower, upper).unbind(-2)
    for found, wanted in zip(
        ops.relu_relaxation.reference(lower, upper), (low_slope, up_slope, intercept), strict=True
    ):
        assert torch.equal(found, wanted)
