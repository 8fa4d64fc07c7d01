"""No point of a box leaves the bounds: corners, random points and attacks, for every method, backend and member."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from tests.chains import Case, cases
from tests.support import CPU_BACKENDS, METHODS, assert_bounds_close, scale

ROUNDING = {torch.float32: 2e-5, torch.float64: 1e-10}
RUNS = [(name, dtype) for name in CPU_BACKENDS for dtype in (torch.float32, torch.float64)]


def _points(case: Case, b: int, p: int, count: int = 60) -> Tensor:
    """Points of sample b's box: both ends, uniform, corners, and corners that attack each output of member p."""
    low, high = case.x_L[b : b + 1], case.x_U[b : b + 1]
    uniform = low + (high - low) * torch.rand(count, *case.input_shape, dtype=torch.float64)
    corners = torch.where(torch.rand(count, *case.input_shape) < 0.5, low, high)
    points = [low, high, uniform.clamp(low, high), corners]
    start = uniform[:1]
    for row in range(min(4, _outputs(case, p, b, start).shape[1])):
        for ascend in (False, True):
            point = start
            for _ in range(3):
                point = point.detach().requires_grad_()
                (slope,) = torch.autograd.grad(_outputs(case, p, b, point)[0, row], point)
                point = torch.where((slope > 0) == ascend, high, low)
            points.append(point.detach())
    return torch.cat(points)


def _outputs(case: Case, p: int, b: int, x: Tensor) -> Tensor:
    outputs = case.values(p, x)[1]
    return outputs if case.C is None else outputs @ case.C[b].T


def _assert_inside(values: Tensor, lower: Tensor, upper: Tensor, rounding: float) -> None:
    slack = rounding * scale(lower, upper)
    assert (values >= lower - slack).all()
    assert (values <= upper + slack).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("backend", "dtype"), RUNS)
@given(case=cases(samples=(1, 2, 3)))
@settings(max_examples=12)
def test_no_point_leaves_the_bounds(method: str, backend: str, dtype: torch.dtype, case: Case) -> None:
    lower, upper = case.bounds(method, backend, dtype)
    hidden = case.hidden(method, backend, dtype)
    for p in range(case.members):
        for b in range(len(case.x_L)):
            points = _points(case, b, p)
            _assert_inside(_outputs(case, p, b, points), lower[p, b], upper[p, b], ROUNDING[dtype])
            for name, values in case.values(p, points)[0].items():
                _assert_inside(values, hidden[name][0][p, b], hidden[name][1][p, b], ROUNDING[dtype])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("backend", CPU_BACKENDS)
@given(case=cases(samples=(1, 3, 17)))
@settings(max_examples=15)
def test_a_single_point_is_bounded_by_its_value(method: str, backend: str, case: Case) -> None:
    case = replace(case, x_U=case.x_L)
    values = torch.stack(
        [
            torch.stack([_outputs(case, p, b, case.x_L[b : b + 1])[0] for b in range(len(case.x_L))])
            for p in range(case.members)
        ]
    )
    assert_bounds_close(case.bounds(method, backend), (values, values), 1e-9)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("backend", CPU_BACKENDS)
@given(case=cases(samples=(2,)))
@settings(max_examples=10)
def test_a_huge_box_is_bounded_too(method: str, backend: str, case: Case) -> None:
    wide = replace(case, x_L=case.x_L - 1e3, x_U=case.x_U + 1e3)
    lower, upper = wide.bounds(method, backend, torch.float32)
    assert lower.isfinite().all()
    assert upper.isfinite().all()
    for p in range(wide.members):
        for b in range(2):
            _assert_inside(_outputs(wide, p, b, _points(wide, b, p, 20)), lower[p, b], upper[p, b], 2e-5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("backend", CPU_BACKENDS)
@given(case=cases(samples=(1, 3), leaks=(0.0, 0.1, 0.7, 1.0), pools=True))
@settings(max_examples=8)
def test_leaky_activations_and_average_pools(method: str, backend: str, case: Case) -> None:
    lower, upper = case.bounds(method, backend)
    hidden = case.hidden(method, backend)
    for p in range(case.members):
        for b in range(len(case.x_L)):
            points = _points(case, b, p)
            _assert_inside(_outputs(case, p, b, points), lower[p, b], upper[p, b], 1e-10)
            for name, values in case.values(p, points)[0].items():
                _assert_inside(values, hidden[name][0][p, b], hidden[name][1][p, b], 1e-10)
