"""The two lines around a ReLU."""

import pytest
import torch

from glsk import ops
from tests.support import CPU_BACKENDS

# lower, upper -> lower slope, upper slope, intercept
EXAMPLES = [
    (1.0, 3.0, 1.0, 1.0, 0.0),
    (0.0, 3.0, 1.0, 1.0, 0.0),
    (-3.0, -1.0, 0.0, 0.0, 0.0),
    (-3.0, 0.0, 0.0, 0.0, 0.0),
    (0.0, 0.0, 1.0, 1.0, 0.0),
    (2.0, 2.0, 1.0, 1.0, 0.0),
    (-2.0, -2.0, 0.0, 0.0, 0.0),
    (-1.0, 3.0, 1.0, 0.75, 0.75),
    (-3.0, 1.0, 0.0, 0.25, 0.75),
    (-2.0, 2.0, 0.0, 0.5, 1.0),  # a tie goes to the zero line
]


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_examples(backend: str, dtype: torch.dtype) -> None:
    table = torch.tensor(EXAMPLES, dtype=dtype)
    found = ops.relu_relaxation(table[:, 0], table[:, 1], backend=backend)
    assert torch.equal(torch.stack(found, dim=1), table[:, 2:])


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_the_lines_enclose_the_relu_and_touch_it(backend: str) -> None:
    lower = torch.randn(1000, dtype=torch.float64)
    upper = lower + 2 * torch.rand(1000, dtype=torch.float64)
    lower_slope, upper_slope, intercept = ops.relu_relaxation(lower, upper, backend=backend)
    for t in torch.linspace(0, 1, 21, dtype=torch.float64):
        v = lower + t * (upper - lower)
        assert (lower_slope * v <= v.relu() + 1e-15).all()
        assert (upper_slope * v + intercept >= v.relu() - 1e-12).all()
    for end in (lower, upper):
        torch.testing.assert_close(upper_slope * end + intercept, end.relu())
    assert ((lower_slope == 0) | (lower_slope == 1)).all()


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_widely_different_magnitudes_stay_finite(backend: str) -> None:
    lower = torch.tensor([-1e-30, -1e30, -1e-38])
    upper = torch.tensor([1e30, 1e-30, 1e-38])
    found = torch.stack(ops.relu_relaxation(lower, upper, backend=backend))
    assert found.isfinite().all()
    assert (found >= 0).all()
