"""Which relaxation may never be looser than which, and what a larger box does."""

from dataclasses import replace

import pytest
from hypothesis import given, settings

from tests.chains import Case, cases
from tests.support import CPU_BACKENDS, scale


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@given(case=cases())
@settings(max_examples=20)
def test_hbox_is_never_looser_than_ibp(backend: str, case: Case) -> None:
    pairs = [(case.bounds("HBox", backend), case.bounds("IBP", backend))]
    ibp = case.hidden("IBP", backend)
    pairs += [(bounds, ibp[name]) for name, bounds in case.hidden("HBox", backend).items()]
    _assert_within(pairs)


@given(case=cases(leaks=(0.0, 0.1, 0.7, 1.0), pools=True))
@settings(max_examples=15)
def test_hbox_is_never_looser_than_ibp_on_leaky_networks(case: Case) -> None:
    ibp = case.hidden("IBP")
    pairs = [(case.bounds("HBox"), case.bounds("IBP"))]
    _assert_within(pairs + [(bounds, ibp[name]) for name, bounds in case.hidden("HBox").items()])


def _assert_within(pairs: list) -> None:
    for hbox, box in pairs:
        slack = 1e-10 * scale(*box)
        assert (hbox[0] >= box[0] - slack).all()
        assert (hbox[1] <= box[1] + slack).all()


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("method", ["IBP"])
@given(case=cases())
@settings(max_examples=10)
def test_a_larger_box_never_tightens_ibp(backend: str, method: str, case: Case) -> None:
    lower, upper = case.bounds(method, backend)
    wide_lower, wide_upper = replace(case, x_L=case.x_L - 0.1, x_U=case.x_U + 0.1).bounds(method, backend)
    slack = 1e-10 * scale(wide_lower, wide_upper)
    assert (wide_lower <= lower + slack).all()
    assert (wide_upper >= upper - slack).all()


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@given(case=cases())
@settings(max_examples=10)
def test_crown_ibp_keeps_the_hidden_bounds_of_ibp(backend: str, case: Case) -> None:
    ibp = case.hidden("IBP", backend)
    for name, (lower, upper) in case.hidden("CROWN-IBP", backend).items():
        assert (lower == ibp[name][0]).all()
        assert (upper == ibp[name][1]).all()


@given(case=cases())
@settings(max_examples=20)
def test_without_unstable_units_every_linear_method_is_exact(case: Case) -> None:
    """On a box so small that no ReLU is unstable, HBox, CROWN-IBP and CROWN are all the exact range of a linear map."""
    point = (case.x_L + case.x_U) / 2
    tiny = replace(case, x_L=point - 1e-9, x_U=point + 1e-9)
    if any(((lower < 0) & (upper > 0)).any() for lower, upper in tiny.hidden("IBP").values()):
        return
    lower, upper = tiny.bounds("CROWN")
    for method in ("HBox", "CROWN-IBP"):
        found = tiny.bounds(method)
        assert (found[0] - lower).abs().max() <= 1e-13 * scale(lower, upper)
        assert (found[1] - upper).abs().max() <= 1e-13 * scale(lower, upper)
