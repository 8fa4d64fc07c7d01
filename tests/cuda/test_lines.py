"""The general kernel, emulated, with every choice of lines."""

from dataclasses import replace
from types import ModuleType

import pytest
import torch
from torch import Tensor

from glsk.geometry import encode
from tests.cuda.lines import RULES, lines_around, pass_by_lines
from tests.cuda.passes import Problem, chain, problem
from tests.support import TOLERANCE, assert_close

DTYPES = (torch.float32, torch.float64)
IMAGE, CONVS = (2, 8, 7), [(3, 3, 1, 1), (5, 3, 2, 0), (4, 2, 1, 1)]


def operands(given: Problem, lines: list[Tensor] | None = None, dtype: torch.dtype = torch.float64) -> list:
    """The tensors of a pass in the op's order."""
    known = list(given.known) if given.known else [None, None]
    lines = lines or [torch.empty(0)] * len(given.lowers)
    lists = (given.weights, given.biases, given.lowers, given.uppers, lines)
    cast = [[t.to(dtype) for t in some] for some in lists]
    rest = [None if t is None else t.to(dtype) for t in (given.C, *known)]
    return [given.x_L.to(dtype), given.x_U.to(dtype), *cast, *rest]


def run(
    launcher: ModuleType, given: Problem, leaks: list[float], rule: str, lines: list[Tensor] | None, variant: str,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    *some, low, high = operands(given, lines, dtype)
    return launcher.run_pass(*some, (low, high), encode(given.layers), leaks, rule, 2, variant)


def agree(
    launcher: ModuleType, given: Problem, leaks: list[float], rule: str, lines: list[Tensor] | None = None,
    variant: str = "general", dtype: torch.dtype = torch.float64,
) -> None:  # fmt: skip
    wanted = pass_by_lines(*operands(given, lines), encode(given.layers), leaks, rule, True)
    for one, other in zip(run(launcher, given, leaks, rule, lines, variant, dtype), wanted, strict=True):
        assert_close(one, other, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("rows", [None, 7])
def test_rules_with_leaks(launcher: ModuleType, rows: int | None, rule: str, dtype: torch.dtype) -> None:
    layers = chain(IMAGE, CONVS, 6 if rows else None)
    agree(launcher, problem(layers, rows=rows), [0.0, 0.1, 0.75, 0.0][: len(layers)], rule, dtype=dtype)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("variant", "outputs", "rows"), [("patch", None, None), ("margins", 10, 9)])
def test_rules_with_leaks_on_chip(
    launcher: ModuleType, variant: str, outputs: int | None, rows: int | None, rule: str
) -> None:
    layers = chain((1, 12, 11), [(3, 5, 2, 2), (5, 4, 2, 1)], outputs)
    leaks = [0.25, 0.5, 0.0][: len(layers)]
    agree(launcher, problem(layers, rows=rows), leaks, rule, None, variant, torch.float32)


@pytest.mark.parametrize("shape", [(2, 3, 1), (1, 3, 1), (2, 1, 1), (1, 1, 1), (2, 3, 0), (1, 1, 0)])
@pytest.mark.parametrize("rows", [None, 7])
def test_explicit_lines(launcher: ModuleType, rows: int | None, shape: tuple[int, int, int]) -> None:
    """Of every member, sample and row (0), or shared; of some layers bounds instead; with strides of any kind."""
    layers = chain(IMAGE, CONVS, 6 if rows else None)
    given = problem(layers, samples=3, rows=rows)
    count = shape[2] or (rows or layers[-1].out_features)
    lines = [
        torch.randn(*shape[:2], count, layer.out_features, 4, dtype=torch.float64).mT if k != 1 else torch.empty(0)
        for k, layer in enumerate(layers[:-1])
    ]
    lines[0] = lines[0].contiguous()
    for dtype in DTYPES:
        agree(launcher, given, [0.0] * len(layers), "parallel", lines, dtype=dtype)


def test_lines_by_row_are_no_matter_for_the_kernels_on_chip(launcher: ModuleType) -> None:
    """They are refused by name, and served by the general kernel when the best one is asked for."""
    layers = chain((1, 12, 11), [(3, 5, 2, 2), (5, 4, 2, 1)], 10)
    given = problem(layers, rows=9)
    lines = [torch.randn(1, 1, 9, 4, layer.out_features, dtype=torch.float64) for layer in layers[:-1]]
    leaks = [0.0] * 3
    with pytest.raises(ValueError, match="margins kernel does not serve"):
        run(launcher, given, leaks, "adaptive", lines, "margins", torch.float32)
    agree(launcher, given, leaks, "adaptive", lines, "", torch.float32)
    agree(launcher, given, leaks, "adaptive", [line[:, :, :1] for line in lines], "margins", torch.float32)
    hidden = replace(given, layers=layers[:2], weights=given.weights[:2], biases=given.biases[:2], C=None)
    hidden = replace(hidden, lowers=given.lowers[:1], uppers=given.uppers[:1])
    with pytest.raises(ValueError, match="patch kernel does not serve"):
        run(launcher, hidden, leaks[:2], "adaptive", [lines[0][:, :, :1]], "patch", torch.float32)


@pytest.mark.parametrize("leak", [0.0, 0.25])
def test_leaks_and_rules_that_the_deep_kernel_lacks(launcher: ModuleType, leak: float) -> None:
    given = problem(chain((1, 12, 12), [(16, 5, 2, 2), (16, 4, 2, 1)], 11))
    leaks, rule = [leak] * 3, "adaptive" if leak else "parallel"
    with pytest.raises(ValueError, match="deep kernel does not serve"):
        run(launcher, given, leaks, rule, None, "deep", torch.float32)


def test_the_lines_of_the_reference_are_the_ops() -> None:
    """The plain statement above against the package's own."""
    from glsk import ops

    lower = torch.randn(2, 3, 50, dtype=torch.float64)
    upper = lower + torch.rand(2, 3, 50, dtype=torch.float64)
    low_slope, up_slope, intercept = ops.relu_relaxation.reference(lower, upper)
    lines = lines_around(lower, upper, "adaptive", 0.0)[:, :, 0].unbind(2)
    for one, other in zip(lines, (low_slope, 0 * lower, up_slope, intercept), strict=True):
        assert torch.equal(one, other)
