"""The compiled CPU backend on every instruction set of this machine."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import assume, given, settings

import glsk
from tests.chains import Case, cases, near_kink
from tests.support import METHODS, TOLERANCE, assert_bounds_close

_C = pytest.importorskip("glsk._C", exc_type=ImportError)


@pytest.fixture(scope="module", params=_C.available_isas())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    before = _C.isa()
    assert _C.select_isa(request.param)
    yield request.param
    assert _C.select_isa(before)


def test_the_best_one_is_the_default() -> None:
    assert _C.isa() == _C.available_isas()[0]
    assert "portable" in _C.available_isas()


def test_an_unknown_one_is_refused() -> None:
    before = _C.isa()
    assert not _C.select_isa("abacus")
    assert _C.isa() == before


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(case=cases())
@settings(max_examples=8)
def test_it_equals_the_reference(isa: str, method: str, dtype: torch.dtype, case: Case) -> None:
    assert _C.isa() == isa
    assume(not near_kink(case, method))
    found = case.bounds(method, "cpu", dtype, prune=False)
    assert_bounds_close(found, case.bounds(method, prune=False), TOLERANCE[dtype])


@given(case=cases())
@settings(max_examples=16)
def test_it_prunes_as_the_reference_does(isa: str, case: Case) -> None:
    """Rows that are spared because one side proves them stable change nothing downstream."""
    assume(not near_kink(case, "CROWN"))
    found = case.bounds("CROWN", "cpu", torch.float64, prune=True)
    assert_bounds_close(found, case.bounds("CROWN", "reference", prune=True), 1e-9)


def test_a_window_may_lie_in_the_padding_entirely() -> None:
    """Outputs whose whole receptive field is padding: their bounds are the bias."""
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 2, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(2, 3, (3, 1), padding=2),
        torch.nn.ReLU(),
        torch.nn.Conv2d(3, 2, 1, padding=2),
    )
    bounded = glsk.BoundedModule(net, (1, 3, 4))
    x = torch.rand(2, 1, 3, 4)
    for method in METHODS:
        found, wanted = (
            tuple(t.detach() for t in bounded.compute_bounds(x, eps=0.1, method=method, backend=name, prune=False))
            for name in ("cpu", "reference")
        )
        assert_bounds_close(found, wanted, 1e-5)
        corner = found[0].view(2, 2, 11 - 1, -1)[:, :, 0, 0]
        assert torch.equal(corner, net[4].bias.detach().expand(2, 2))
