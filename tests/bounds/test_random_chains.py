"""Every backend against the float64 reference, on random chains, populations, boxes and specifications."""

import pytest
import torch
from hypothesis import assume, given, settings

from tests.chains import Case, cases, near_kink
from tests.support import CPU_BACKENDS, METHODS, NATIVE, TOLERANCE, assert_bounds_close, assert_close

RUNS = [("reference", torch.float32), *((name, dtype) for name in NATIVE for dtype in (torch.float32, torch.float64))]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("backend", "dtype"), RUNS)
@given(case=cases())
@settings(max_examples=30)
def test_output(method: str, backend: str, dtype: torch.dtype, case: Case) -> None:
    assume(not near_kink(case, method))
    found = case.bounds(method, backend, dtype, prune=False)
    assert found[0].dtype == dtype
    assert_bounds_close(found, case.bounds(method, prune=False), TOLERANCE[dtype])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("backend", "dtype"), RUNS)
@given(case=cases(spec=False))
@settings(max_examples=20)
def test_every_layer(method: str, backend: str, dtype: torch.dtype, case: Case) -> None:
    assume(not near_kink(case, method))
    found, wanted = case.hidden(method, backend, dtype), case.hidden(method)
    assert list(found) == list(wanted)
    for name, bounds in found.items():
        assert_bounds_close(bounds, wanted[name], TOLERANCE[dtype])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("backend", CPU_BACKENDS)
@given(case=cases())
@settings(max_examples=10)
def test_the_lower_bound_alone_is_the_same(method: str, backend: str, case: Case) -> None:
    lower, upper = case.bounds(method, backend, bound_upper=False)
    assert upper is None
    assert_close(lower, case.bounds(method, backend)[0], 1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("backend", CPU_BACKENDS)
@given(case=cases())
@settings(max_examples=10)
def test_pruned_bounds_agree_between_backends(method: str, backend: str, case: Case) -> None:
    """Which rows a backend prunes is its own affair, so only the method that does not prune is held to equality."""
    assume(not near_kink(case, method, 1e-10))
    if method not in ("CROWN", "DeepZ"):
        assert_bounds_close(case.bounds(method, backend), case.bounds(method, prune=False), 1e-9)
    else:
        lower, upper = case.bounds(method, backend)
        assert (lower <= upper + 1e-9).all()
