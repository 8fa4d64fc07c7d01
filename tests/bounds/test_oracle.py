"""The float64 reference against an independent implementation: dense NumPy matrices, member by member."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from glsk import Normalize
from tests import oracle
from tests.chains import AFFINE, Case, cases, near_kink
from tests.support import METHODS, assert_bounds_close


def _numpy(case: Case, p: int) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in case.member(p).items()}


def _box(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """The box [B, n] that reaches the first affine layer."""
    first = case.net[0] if isinstance(case.net[0], Normalize) else torch.nn.Identity()
    return first(case.x_L).flatten(1).numpy(), first(case.x_U).flatten(1).numpy()


def _expected(case: Case, method: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Per layer, then for the output: lower, upper [P, B, n]."""
    low, high = _box(case)
    found = [
        oracle.bounds(
            method,
            oracle.layers_of(case.net, case.input_shape, _numpy(case, p)),
            low[b],
            high[b],
            None if case.C is None else case.C[b].numpy(),
        )
        for p in range(case.members)
        for b in range(len(low))
    ]
    shape = (case.members, len(low), -1)
    return [
        tuple(torch.from_numpy(np.stack([f[k][end] for f in found])).reshape(shape) for end in (0, 1))
        for k in range(len(found[0]))
    ]


@pytest.mark.parametrize("method", METHODS)
@given(case=cases(max_units=60, samples=(1, 3)))
@settings(max_examples=50)
def test_reference_equals_the_oracle(method: str, case: Case) -> None:
    _assert_equals_the_oracle(method, case)


@pytest.mark.parametrize("method", METHODS)
@given(case=cases(max_units=60, samples=(1, 3), leaks=(0.0, 0.01, 0.3, 1.0), pools=True))
@settings(max_examples=30)
def test_leaky_activations_and_average_pools(method: str, case: Case) -> None:
    _assert_equals_the_oracle(method, case)


def _assert_equals_the_oracle(method: str, case: Case) -> None:
    if near_kink(case, method, 1e-10):
        return
    *hidden, output = _expected(case, method)
    assert_bounds_close(case.bounds(method, prune=False), output, 1e-11)
    affine = [name for name, module in case.net.named_children() if isinstance(module, AFFINE)]
    for name, bounds in case.hidden(method).items():
        assert_bounds_close(bounds, hidden[affine.index(name)], 1e-11)


def test_conv_matrix_is_the_convolution() -> None:
    weight, image = torch.randn(3, 2, 2, 3, dtype=torch.float64), torch.randn(2, 5, 4, dtype=torch.float64)
    matrix = oracle.conv_matrix(weight.numpy(), (5, 4), (2, 1), (1, 2))
    wanted = torch.nn.functional.conv2d(image[None], weight, stride=(2, 1), padding=(1, 2))
    assert_bounds_close((torch.from_numpy(matrix @ image.flatten().numpy()),) * 2, (wanted.flatten(),) * 2, 1e-13)
