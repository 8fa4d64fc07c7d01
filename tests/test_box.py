"""Boxes: the clipped ball, given ends, and everything that is refused before any work."""

import math

import pytest
import torch
from torch import Tensor, nn

import glsk
from glsk import box
from glsk.network import build_chain

CHAIN = build_chain(nn.Sequential(nn.Conv2d(2, 1, 2), nn.Flatten(), nn.Linear(6, 2)), (2, 3, 4))
X = torch.rand(5, 2, 3, 4)


def resolve(
    x: Tensor | None = None,
    eps: object = None,
    clip: object = None,
    x_L: Tensor | None = None,
    x_U: Tensor | None = None,
    check_finite: bool = True,
) -> tuple[Tensor, Tensor]:
    return box.resolve(CHAIN, x, eps, clip, x_L, x_U, check_finite)


def test_a_ball() -> None:
    low, high = resolve(X, 0.25)
    assert torch.equal(low, (X - 0.25).flatten(1))
    assert torch.equal(high, (X + 0.25).flatten(1))


def test_a_ball_is_clipped_to_the_data_range() -> None:
    low, high = resolve(X, 0.4, (0.0, 1.0))
    assert torch.equal(low, (X - 0.4).clamp(0, 1).flatten(1))
    assert torch.equal(high, (X + 0.4).clamp(0, 1).flatten(1))
    assert torch.equal(resolve(X, 0.4, [0, 1])[0], low)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 4), (2, 1, 1), (2, 3, 4), (5, 1, 1, 1), (5, 2, 3, 4)])
def test_eps_broadcasts(shape: tuple[int, ...]) -> None:
    eps = torch.rand(shape, dtype=torch.float64)
    low, high = resolve(X, eps)
    assert low.dtype == torch.float32
    torch.testing.assert_close(high - low, (2 * eps.float()).expand(X.shape).flatten(1))


def test_ends_are_taken_as_they_are() -> None:
    low, high = resolve(x_L=X, x_U=X + 1)
    assert torch.equal(low, X.flatten(1))
    assert torch.equal(high, (X + 1).flatten(1))


def test_normalisation_comes_after_clipping() -> None:
    chain = build_chain(nn.Sequential(glsk.Normalize(0.5, 0.1), nn.Conv2d(2, 1, 2)), (2, 3, 4))
    low, high = box.resolve(chain, X, 0.4, (0.0, 1.0), None, None, True)
    torch.testing.assert_close(low, ((X - 0.4).clamp(0, 1).flatten(1) - 0.5) / 0.1)
    torch.testing.assert_close(high, ((X + 0.4).clamp(0, 1).flatten(1) - 0.5) / 0.1)


def bad(value: float) -> Tensor:
    x = X.clone()
    x[3, 1, 2, 0] = value
    return x


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give either x and eps, or both x_L and x_U"),
        ({"x": X}, "eps is required"),
        ({"x_L": X}, "or both x_L and x_U"),
        ({"x": X, "eps": 0.1, "x_L": X}, "not both"),
        ({"x_L": X, "x_U": X, "eps": 0.1}, "eps and clip belong to x"),
        ({"x_L": X, "x_U": X, "clip": (0, 1)}, "eps and clip belong to x"),
        ({"x": X, "eps": -0.1}, "eps: must be finite and >= 0, got -0.1"),
        ({"x": X, "eps": math.nan}, "eps: must be finite"),
        ({"x": X, "eps": math.inf}, "eps: must be finite"),
        ({"x": X, "eps": torch.tensor(-0.1)}, "eps: every value must be finite and >= 0"),
        ({"x": X, "eps": torch.tensor([0.1, 0.1, math.nan, 0.1, 0.1])}, "eps: every value"),
        ({"x": X, "eps": torch.tensor(math.inf)}, "eps: every value"),
        ({"x": X, "eps": torch.rand(7)}, r"eps: shape \[7\] does not broadcast to \[5, 2, 3, 4\]"),
        ({"x": X, "eps": 0.1, "clip": (1.0, 0.0)}, "clip: expected"),
        ({"x": X, "eps": 0.1, "clip": (0.5, 0.5)}, "clip: expected"),
        ({"x": X, "eps": 0.1, "clip": (0.0, math.nan)}, "clip: expected"),
        ({"x": X, "eps": 0.1, "clip": (0.0, 0.5, 1.0)}, "clip: expected"),
        ({"x": X, "eps": 0.1, "clip": 1.0}, "clip: expected"),
        ({"x": X, "eps": 0.1, "clip": ("0", "1")}, "clip: expected"),
        ({"x": X + 3, "eps": 0.1, "clip": (0.0, 1.0)}, "x lies outside the clipping range"),
        ({"x": bad(math.nan), "eps": 0.1}, "x: holds NaN"),
        ({"x": bad(math.inf), "eps": 0.1}, "x: holds NaN or infinity"),
        ({"x_L": X, "x_U": bad(math.nan)}, "x_U: holds NaN"),
        ({"x_L": bad(-math.inf), "x_U": X}, "x_L: holds NaN or infinity"),
        ({"x_L": bad(2.0), "x_U": X}, "x_L > x_U"),
        ({"x": X[:0], "eps": 0.1}, "x: the batch is empty"),
        ({"x": X[0], "eps": 0.1}, r"x: expected \[B, 2, 3, 4\], got \[2, 3, 4\]"),
        ({"x": X.flatten(1), "eps": 0.1}, r"x: expected \[B, 2, 3, 4\], got \[5, 24\]"),
        ({"x": X.transpose(2, 3), "eps": 0.1}, r"x: expected .* got \[5, 2, 4, 3\]"),
        ({"x_L": X, "x_U": X[:4]}, "x_L and x_U must agree in shape"),
        ({"x_L": X, "x_U": X.double()}, "x_L and x_U must agree in shape, dtype"),
    ],
)
def test_bad_values_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": X.half(), "eps": 0.1}, "x: expected float32 or float64, got torch.float16"),
        ({"x": X.bfloat16(), "eps": 0.1}, "x: expected float32 or float64"),
        ({"x": X.long(), "eps": 0.1}, "x: expected float32 or float64, got torch.int64"),
        ({"x_L": X, "x_U": X.half()}, "x_U: expected float32 or float64"),
        ({"x": X.numpy(), "eps": 0.1}, "x: expected a tensor, got ndarray"),
        ({"x": X, "eps": True}, "eps: expected a number or a tensor, got bool"),
        ({"x": X, "eps": "0.1"}, "eps: expected a number or a tensor, got str"),
        ({"x": X, "eps": [0.1]}, "eps: expected a number or a tensor, got list"),
    ],
)
def test_bad_types_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        resolve(**arguments)


def test_checks_of_values_can_be_left_out() -> None:
    low, _ = resolve(bad(math.nan), 0.1, check_finite=False)
    assert low.isnan().sum() == 1
