"""No point of a box leaves the bounds, whatever the method, the backend, the dtype and the pruning."""

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

import glsk
from fuzz.targets.bounds_agree import LEAKS
from tests.chains import Case, cases
from tests.support import CPU_BACKENDS, scale

ROUNDING = {torch.float32: 2e-5, torch.float64: 1e-10}


def inputs() -> st.SearchStrategy[dict[str, Any]]:
    """A case, any method, and how it is run."""
    plain = cases(max_units=150, samples=(1, 2, 17))
    leaky = cases(max_units=150, samples=(1, 2), leaks=LEAKS, pools=True)
    return st.fixed_dictionaries(
        {
            "case": plain | leaky,
            "method": st.sampled_from(glsk.methods()),
            "backend": st.sampled_from(CPU_BACKENDS),
            "dtype": st.sampled_from([torch.float32, torch.float64]),
            "prune": st.booleans(),
            "seed": st.integers(0, 2**31),
        }
    )


def check(value: dict[str, Any]) -> None:
    """Ends of the box, uniform points and corners, in float64."""
    case, dtype = value["case"], value["dtype"]
    options = {"prune": value["prune"]}
    lower, upper = case.bounds(value["method"], value["backend"], dtype, **options)
    hidden = case.hidden(value["method"], value["backend"], dtype)
    generator = torch.Generator().manual_seed(value["seed"])
    for p in range(case.members):
        for b in range(len(case.x_L)):
            inner, outputs = case.values(p, _points(case, b, generator))
            if case.C is not None:
                outputs = outputs @ case.C[b].T
            _inside(outputs, lower[p, b], upper[p, b], ROUNDING[dtype])
            for name, values in inner.items():
                _inside(values, hidden[name][0][p, b], hidden[name][1][p, b], ROUNDING[dtype])


def _points(case: Case, b: int, generator: torch.Generator, count: int = 40) -> Tensor:
    low, high = case.x_L[b : b + 1], case.x_U[b : b + 1]
    random = torch.rand(2, count, *case.input_shape, generator=generator, dtype=torch.float64)
    uniform = (low + (high - low) * random[0]).clamp(low, high)
    return torch.cat([low, high, uniform, torch.where(random[1] < 0.5, low, high)])


def _inside(values: Tensor, lower: Tensor, upper: Tensor, rounding: float) -> None:
    slack = rounding * scale(lower, upper)
    assert bool((values >= lower - slack).all()), f"{float((lower - values).max()):.2e} below the lower bound"
    assert bool((values <= upper + slack).all()), f"{float((values - upper).max()):.2e} above the upper bound"
