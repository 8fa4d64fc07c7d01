"""The fused gradients of the CPU kernels against autograd through the float64 reference."""

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

import glsk
from tests.chains import Case, cases, near_kink
from tests.support import scale

METHODS = ("IBP", "HBox", "CROWN-IBP", "CROWN", "DeepZ")


def gradients(case: Case, method: str, backend: str, dtype: torch.dtype, **options: object) -> dict[str, Tensor]:
    """Of a sum of the bounds with fixed random weights, by everything that a call is given."""
    leaves = {name: value.to(dtype).requires_grad_() for name, value in case.params.items()}
    box = {"x_L": case.x_L.to(dtype).requires_grad_(), "x_U": case.x_U.to(dtype).requires_grad_()}
    C = None if case.C is None else case.C.to(dtype).requires_grad_()
    lower, upper = glsk.BoundedModule(case.net, case.input_shape).compute_bounds(
        **box, C=C, params=leaves, method=method, backend=backend, **options
    )
    generator = torch.Generator().manual_seed(0)
    total = sum(
        (bound * torch.randn(bound.shape, generator=generator, dtype=torch.float64).to(dtype)).sum()
        for bound in (lower, upper)
        if bound is not None
    )
    wanted = leaves | box | ({} if C is None else {"C": C})
    found = torch.autograd.grad(total, list(wanted.values()), allow_unused=True)
    return {name: torch.zeros_like(t) if g is None else g for (name, t), g in zip(wanted.items(), found, strict=True)}


def assert_close(found: dict[str, Tensor], wanted: dict[str, Tensor], tolerance: float) -> None:
    for name, value in wanted.items():
        error = float((found[name].double() - value).abs().max())
        assert error <= tolerance * max(1.0, scale(value)), f"{name}: {error} of {scale(value)}"


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=15, deadline=None)
@given(case=cases())
def test_float64_is_autograds(method: str, case: Case) -> None:
    if near_kink(case, method):
        return
    for options in ({}, {"prune": False, "bound_upper": False}):
        wanted = gradients(case, method, "reference", torch.float64, **options)
        assert_close(gradients(case, method, "cpu", torch.float64, **options), wanted, 1e-9)
