"""What a call to the CUDA backend and its gradient allocate stays under ``memory_limit``, counted in the emulation."""

from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

import glsk
from glsk import tiling
from tests.meter import metered
from tests.support import METHODS, assert_close

SHAPE = (1, 12, 11)
MEMBERS, SAMPLES = 3, 4


@pytest.fixture(scope="module")
def bounded() -> glsk.BoundedModule:
    """Many units, few parameters: gradients of these are results, which no limit counts."""
    convs = nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 3, stride=2), nn.ReLU()
    return glsk.BoundedModule(nn.Sequential(*convs, nn.Flatten(), nn.Linear(125, 4)), SHAPE)


def given(bounded: glsk.BoundedModule) -> dict[str, Tensor]:
    torch.manual_seed(5)
    params = 0.3 * torch.randn(MEMBERS, bounded.num_parameters)
    return {"params": params.requires_grad_(), "x": torch.rand(SAMPLES, *SHAPE).requires_grad_()}


def need(bounded: glsk.BoundedModule, spec_rows: int | None, gradient: bool = True) -> tiling.Footprint:
    cpu = torch.device("cpu")
    return tiling.footprint(bounded.chain.geometry, spec_rows, "cuda", cpu, torch.float32, SAMPLES, gradient)


def loss_of(bounded: glsk.BoundedModule, values: dict[str, Tensor], method: str, limit: int) -> Tensor:
    C = glsk.margins(torch.arange(SAMPLES) % 4, 4).float()
    options = {"eps": 0.1, "method": method, "backend": "cuda", "check_finite": False, "memory_limit": limit}
    lower, upper = bounded.compute_bounds(**values, C=C, **options)
    return lower.sum() - upper.square().sum()


@pytest.mark.parametrize("times", [1, 2.5, 100])
@pytest.mark.parametrize("method", [m for m in METHODS if m != "alpha-CROWN"])
def test_both_directions_stay_under_the_limit(
    launcher: ModuleType, bounded: glsk.BoundedModule, method: str, times: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = given(bounded)
    limit = int(times * need(bounded, 3).least)
    with metered(monkeypatch) as meter:
        loss = loss_of(bounded, values, method, limit)
        found = torch.autograd.grad(loss, list(values.values()))
    results = 2 * loss.element_size() * MEMBERS * SAMPLES * 3
    assert meter.peak <= limit + results + 4 * sum(grad.nbytes for grad in found)  # which autograd adds up by tiles
    wanted = torch.autograd.grad(loss_of(bounded, values, method, 1 << 40), list(values.values()))
    for one, other in zip(found, wanted, strict=True):
        assert_close(one, other, 1e-4)


@pytest.mark.parametrize("times", [1, 100])
def test_so_do_hidden_bounds(
    launcher: ModuleType, bounded: glsk.BoundedModule, times: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = given(bounded)
    limit = int(times * need(bounded, None).least)
    with metered(monkeypatch) as meter:
        inner = bounded.intermediate_bounds(**values, eps=0.1, backend="cuda", memory_limit=limit, check_finite=False)
        results = sum(bound.nbytes for pair in inner.values() for bound in pair)
        loss = sum((upper - lower).square().sum() for lower, upper in inner.values())
        found = torch.autograd.grad(loss, list(values.values()))
    # A copy of what is written tile by tile, and gradients of all of it, are autograd's.
    assert meter.peak <= limit + 5 * results + 4 * sum(grad.nbytes for grad in found)
    assert all(grad.abs().sum() > 0 for grad in found)


def test_the_count_is_close_to_what_is_allocated(
    launcher: ModuleType, bounded: glsk.BoundedModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a limit would buy less than it could: the sum of the heaviest bounds and the heaviest gradient is counted,
    though the two need not meet."""
    values = given(bounded)
    with metered(monkeypatch) as meter:
        torch.autograd.grad(loss_of(bounded, values, "CROWN", 1 << 40), list(values.values()))
    counted = need(bounded, 3)
    assert 0.55 * (counted.bounds(MEMBERS, SAMPLES) + counted.workspace.scratch(MEMBERS * SAMPLES)) < meter.peak


def test_a_limit_too_small_for_the_gradient_alone_is_refused_before_any_work(
    launcher: ModuleType, bounded: glsk.BoundedModule
) -> None:
    values = given(bounded)
    forward, both = need(bounded, 3, False).least, need(bounded, 3).least
    assert forward < both
    with torch.no_grad():
        loss_of(bounded, values, "CROWN", both - 1)
    with pytest.raises(ValueError, match=rf"memory_limit: {both - 1} bytes .* at least {both} bytes"):
        loss_of(bounded, values, "CROWN", both - 1)
