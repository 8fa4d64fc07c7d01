"""Triton's kernels near the end of float32's range: right where the ends are finite, and NaN where they are not."""

import pytest
import torch
from torch import Tensor, nn

import glsk
from glsk.geometry import encode, linear
from tests.extremes import EXTREMES, NO_BOUNDS, network

REASON = glsk.backends.why_missing("triton")
pytestmark = [
    pytest.mark.skipif(REASON is not None, reason=str(REASON)),
    *([pytest.mark.gpu] if torch.cuda.is_available() else []),  # and selected by it where there is a device
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # the interpreter computes with NumPy, which warns
]

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def values(*numbers: float) -> Tensor:
    return torch.tensor(numbers, device=DEVICE)


@pytest.mark.parametrize("method", ["IBP", "CROWN-IBP", "CROWN"])
@pytest.mark.parametrize("name", EXTREMES)
def test_finite_ends(name: str, method: str) -> None:
    layers, (low, high), wanted = EXTREMES[name]
    bounded = glsk.BoundedModule(network(layers).to(DEVICE), (1,))
    found = bounded.compute_bounds(x_L=values(low)[None], x_U=values(high)[None], method=method, backend="triton")
    torch.testing.assert_close(torch.stack(found).flatten().cpu(), torch.tensor(wanted), rtol=1e-5, atol=1e-5)


def lines_of(lower: torch.Tensor, upper: torch.Tensor) -> torch.Tensor:
    """Slopes and intercepts [2, n] as the passes prepare them."""
    from glsk.kernels.relu_relaxation import BLOCK, channel_last_slopes_kernel

    n = lower.numel()
    slopes = torch.empty(2, n, device=lower.device)
    channel_last_slopes_kernel[(1, 1)](lower, upper, slopes, n, 1, n, MASK=False, BLOCK=BLOCK, num_warps=4)
    return slopes.cpu().double()


def test_relaxation_of_wide_and_of_tiny_intervals() -> None:
    lower, upper = values(-2e38, -3e38, -1e38, -1e-45, -3e-45), values(2e38, 1e38, 3e38, 4e-45, 1e-45)
    upper_slope, intercept = lines_of(lower, upper)
    low, high = lower.cpu().double(), upper.cpu().double()
    torch.testing.assert_close(upper_slope, high / (high - low), rtol=1e-6, atol=0)
    torch.testing.assert_close(intercept[:3], (-high / (high - low) * low)[:3], rtol=1e-6, atol=0)


@pytest.mark.parametrize(("low", "high"), NO_BOUNDS)
def test_what_is_no_bound_stays_none(low: float, high: float) -> None:
    """A ReLU's lines, an interval after a ReLU, and the hybrid zonotope's box."""
    from glsk.kernels.hbox_relu import hbox_relu
    from glsk.kernels.ibp_affine import ibp_affine

    lower, upper, one = values(low), values(high), values(1.0)
    assert lines_of(lower, upper).isnan().all()
    assert all(t.isnan().all() for t in hbox_relu(one, one, lower, upper, 0.0))
    box = lower.view(1, 1, 1), upper.view(1, 1, 1)
    found = ibp_affine(
        *box, torch.ones(1, 1, 1, 1, 1, device=DEVICE), one[None], encode([linear(1, 1, True)]), True, 0.0
    )
    assert not (found[0].isfinite() & found[1].isfinite()).any()


@pytest.mark.parametrize("hbox", [False, True])
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(("low", "high"), NO_BOUNDS)
def test_no_finite_bound_comes_of_what_is_none(low: float, high: float, sign: float, hbox: bool) -> None:
    from glsk.kernels.passes import launch_pass

    layers = [linear(1, 1, True), linear(1, 1, False)]
    weights = [torch.ones(1, 1, 1, 1, 1, device=DEVICE), sign * torch.ones(1, 1, 1, 1, 1, device=DEVICE)]
    biases = [torch.zeros(1, 1, device=DEVICE)] * 2
    box, shape = values(1.0).view(1, 1, 1), (1, 1, 1)
    bounds = [values(low).view(shape)], [values(high).view(shape)]
    found = launch_pass(-box, box, weights, biases, *bounds, None, None, layers, 1 if hbox else 2, hbox)
    assert all(t.isnan().all() for t in found if t is not None)


def test_a_coefficient_that_overflows_is_no_wrong_number() -> None:
    net = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False)).to(DEVICE)
    net[0].weight.data[:, 0] = values(1e30, 1e30)
    net[2].weight.data[0] = values(1e10, -2e10)
    one = values(1.0)[None]
    options = {"method": "CROWN", "backend": "triton", "check_finite": False}
    lower, upper = glsk.BoundedModule(net, (1,)).compute_bounds(x_L=one, x_U=one, **options)
    assert not lower.isfinite().any()
    assert not upper.isfinite().any()
