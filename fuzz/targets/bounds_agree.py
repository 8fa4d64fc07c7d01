"""The CPU backend against the float64 reference, on random chains: outputs, and every layer before them."""

from typing import Any

import torch
from hypothesis import assume
from hypothesis import strategies as st

from tests.chains import cases, near_kink
from tests.support import CPU_BACKENDS, METHODS, TOLERANCE, assert_bounds_close

LEAKS = (0.0, 0.1, 0.7, 1.0)


def inputs() -> st.SearchStrategy[dict[str, Any]]:
    """A case, a method of a formula, a backend and a dtype."""
    plain = cases(max_units=150)
    leaky = cases(max_units=150, leaks=LEAKS, pools=True)
    return st.fixed_dictionaries(
        {
            "case": plain | leaky,
            "method": st.sampled_from(METHODS),
            "backend": st.sampled_from(CPU_BACKENDS),
            "dtype": st.sampled_from([torch.float32, torch.float64]),
        }
    )


def check(value: dict[str, Any]) -> None:
    """The same bounds up to rounding; nothing is asked where a relaxation jumps within it."""
    case, method, backend, dtype = (value[name] for name in ("case", "method", "backend", "dtype"))
    assume(not near_kink(case, method))
    found = case.bounds(method, backend, dtype, prune=False)
    assert_bounds_close(found, case.bounds(method, prune=False), TOLERANCE[dtype])
    hidden, wanted = case.hidden(method, backend, dtype), case.hidden(method)
    assert list(hidden) == list(wanted)
    for name, bounds in hidden.items():
        assert_bounds_close(bounds, wanted[name], TOLERANCE[dtype])
