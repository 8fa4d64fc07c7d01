"""Subproblems of branch and bound: sound under their splits, never looser than CROWN, warm starts, scores."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

import glsk
from glsk.bounds.subproblems import Roots
from tests.chains import Case, cases
from tests.support import CPU_BACKENDS, assert_close, scale

LEAKS = (0.0, 0.1, 0.7)


def roots_of(case: Case, backend: str, dtype: torch.dtype = torch.float64, **options: object) -> Roots:
    bounded = glsk.BoundedModule(case.net, case.input_shape)
    params = {name: value[:1].to(dtype) for name, value in case.params.items()}
    return Roots.of(bounded, case.x_L.to(dtype), case.x_U.to(dtype), params=params, backend=backend, **options)


def rows_of(case: Case, count: int, rows: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    outputs = case.values(0, case.x_L)[1].shape[1]
    return torch.randn(count, rows, outputs, generator=generator, dtype=torch.float64)


def pre_activations(roots: Roots, case: Case, x: Tensor) -> tuple[Tensor, Tensor]:
    """Of all hidden units, packed [N, U], and the outputs, at points of one image."""
    hidden, outputs = case.values(0, x)
    packed = torch.zeros(len(x), roots.lower.shape[1], dtype=torch.float64)
    for name, units in roots.units.items():
        packed[:, units] = hidden[name]
    return packed, outputs


def inside(case: Case, image: int, count: int = 300) -> Tensor:
    generator = torch.Generator().manual_seed(image)
    low, up = case.x_L[image], case.x_U[image]
    x = low + (up - low) * torch.rand(count, *low.shape, generator=generator, dtype=torch.float64)
    return torch.cat([x, torch.where(torch.rand(x.shape, generator=generator, dtype=torch.float64) < 0.5, low, up)])


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@given(case=cases(samples=(1, 3), leaks=LEAKS, pools=True))
@settings(max_examples=5)
def test_no_point_that_meets_the_splits_leaves_the_bounds(backend: str, case: Case) -> None:
    roots = roots_of(case, backend)
    count = len(case.x_L) * 3
    index = torch.arange(count) % len(case.x_L)
    points = [inside(case, b) for b in range(len(case.x_L))]
    values = [pre_activations(roots, case, x) for x in points]
    generator = torch.Generator().manual_seed(0)
    some = torch.rand(count, roots.lower.shape[1], generator=generator) < 0.2
    signs = torch.stack([values[int(b)][0][i].sign() for i, b in enumerate(index)])  # some point meets the splits
    splits = (signs * some).to(torch.int8)
    C = rows_of(case, count)
    found = roots.bound(C, index=index, splits=splits, iterations=8, corner=True)
    for i, b in enumerate(index.tolist()):
        hidden, outputs = values[b]
        meets = (hidden * splits[i] >= 0).all(1)
        assert meets.any()
        assert ((outputs[meets] @ C[i].T) >= found.lower[i] - 1e-10 * scale(found.lower)).all()
    assert found.corner is not None
    low, up = case.x_L[index][:, None], case.x_U[index][:, None]
    assert ((found.corner >= low - 1e-12) & (found.corner <= up + 1e-12)).all()


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@given(case=cases(samples=(3,), leaks=LEAKS))
@settings(max_examples=4)
def test_one_iteration_is_crown_and_more_are_never_looser(backend: str, case: Case) -> None:
    roots, C = roots_of(case, backend), rows_of(case, 3)
    given_C = replace(case, C=C, params={name: value[:1] for name, value in case.params.items()})
    crown, _ = given_C.bounds("CROWN", prune=False)
    assert_close(roots.bound(C, iterations=1).lower, crown[0], 1e-11)
    more = roots.bound(C, iterations=6).lower
    assert (more >= crown[0] - 1e-11 * scale(crown[0])).all()
    alpha, _ = given_C.bounds("alpha-CROWN", iterations=6)
    assert_close(more, alpha[0], 1e-6)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_a_warm_start_goes_on_from_where_it_was(backend: str) -> None:
    _, roots, C = small(backend)
    found = roots.bound(C, iterations=10)
    again = roots.bound(C, start=found.duals, iterations=1)
    assert_close(again.lower, found.lower, 1e-12)
    assert torch.equal(again.duals, found.duals)
    assert (roots.bound(C, start=found.duals, iterations=5).lower >= found.lower - 1e-12).all()


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_splits_tighten_and_their_multipliers_help(backend: str) -> None:
    _, roots, C = small(backend)
    free = (roots.lower < 0) & (roots.upper > 0)
    splits = torch.where(free & (torch.rand(free.shape, generator=torch.Generator().manual_seed(1)) < 0.5), 1, 0)
    splits = splits.to(torch.int8)
    without = roots.bound(C, splits=splits, iterations=20, lr_beta=0.0)
    found = roots.bound(C, splits=splits, iterations=20)
    assert without.duals is not None
    assert found.duals is not None
    split = (splits != 0)[:, None].expand_as(found.duals)
    assert (without.duals[split] == 0).all()
    assert (found.duals[split] >= 0).all()
    assert (found.duals[split] > 0).any()
    assert found.lower.mean() > without.lower.mean() + 1e-3


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_what_is_asked_for_is_of_the_best_iterate(backend: str) -> None:
    _, roots, C = small(backend)
    splits = torch.zeros(roots.lower.shape, dtype=torch.int8)
    splits[:, ::5] = -1
    found = roots.bound(C, splits=splits, iterations=7, lr_alpha=0.5, coefficients=True, corner=True)
    again = roots.bound(C, splits=splits, start=found.duals, iterations=1, coefficients=True, corner=True)
    for one, other in zip(again, found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    bare = roots.bound(C, splits=splits, iterations=7, lr_alpha=0.5, duals=False)
    assert torch.equal(bare.lower, found.lower)
    assert bare[1:] == (None, None, None)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_a_row_stops_once_it_is_proved(backend: str) -> None:
    _, roots, C = small(backend)
    first = roots.bound(C, iterations=1).lower
    whole = roots.bound(C, iterations=15).lower
    limit = first.clone()
    limit[0] -= 1.0  # proved at once
    limit[1:] = whole[1:] + 1.0  # never
    found = roots.bound(C, iterations=15, threshold=limit).lower
    assert torch.equal(found[1:], whole[1:])
    assert torch.equal(found[0], first[0])
    assert torch.equal(roots.bound(C, iterations=15, threshold=-1e9).lower, first)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_bounds_that_are_not_finite_show(backend: str, bad: float) -> None:
    _, roots, C = small(backend)
    upper = roots.upper.clone()
    upper[1, 3] = bad
    found = replace(roots, upper=upper).bound(C, iterations=4).lower
    assert found[1].isnan().all()
    assert found[[0, 2]].isfinite().all()


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("index", [3, -1])
def test_an_image_that_is_not_there_is_refused(backend: str, index: int) -> None:
    _, roots, C = small(backend)
    with pytest.raises(ValueError, match=r"branch_pass: index: every entry must lie in \[0, 3\)"):
        roots.bound(C[:1], index=torch.tensor([index]))


def test_the_greatest_score_is_worth_splitting() -> None:
    _, roots, C = small("reference")
    C = C[:, :1]
    found = roots.bound(C, iterations=1, coefficients=True)
    assert found.coefficients is not None
    scores = roots.babsr(found.coefficients)[:, 0]
    free = (roots.lower < 0) & (roots.upper > 0)
    assert torch.equal(scores.isfinite(), free)
    chosen = scores.argmax(1)
    gains = []
    for side in (1, -1):
        splits = torch.zeros_like(roots.lower, dtype=torch.int8)
        splits[torch.arange(3), chosen] = side
        gains.append(roots.bound(C, splits=splits, iterations=10).lower - roots.bound(C, iterations=10).lower)
        assert roots.babsr(found.coefficients, splits=splits)[torch.arange(3), 0, chosen].isneginf().all()
    assert torch.stack(gains).amax(0).min() > 0


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_tightened_roots_are_sound_and_never_looser(backend: str) -> None:
    case, roots, _ = small(backend)
    found = roots.tightened(iterations=10)
    assert (found.lower >= roots.lower).all()
    assert (found.upper <= roots.upper).all()
    assert (found.upper - found.lower).sum() < (roots.upper - roots.lower).sum() - 1e-3
    for b in range(3):
        hidden, _ = pre_activations(roots, case, inside(case, b))
        assert ((hidden >= found.lower[b] - 1e-12) & (hidden <= found.upper[b] + 1e-12)).all()
    one = roots.tightened(iterations=10, images=torch.tensor([1]))
    assert torch.equal(one.lower[1], found.lower[1])
    assert torch.equal(one.lower[0], roots.lower[0])


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_compact_roots_bound_as_wide_ones(backend: str) -> None:
    _, roots, C = small(backend)
    compact = roots.compact()
    assert compact.columns is not None
    unstable = (roots.lower < 0) & (roots.upper > 0)
    width = compact.columns.shape[1]
    assert width == unstable.sum(1).max() < roots.lower.shape[1]
    assert unstable.sum(1).min() < width  # some image has columns past its last
    generator = torch.Generator().manual_seed(0)
    index, parent = torch.tensor([0, 0, 1, 2, 2, 2]), torch.tensor([0, 0, 1, 2, 2, 2])
    sides = torch.randint(-1, 2, unstable.shape, generator=generator) * unstable
    start = roots.bound(C, splits=sides.to(torch.int8), iterations=4).duals
    assert start is not None
    column = torch.tensor([0, 1, 2, 0, 3, 4])
    unit = compact.columns[index, column]
    sign = torch.tensor([1, -1, 1, -1, 1, -1])
    narrow = compact.at_columns(sides).to(torch.int8)
    found = compact.bound(
        C[index], index=index, splits=narrow, start=torch.stack([compact.at_columns(s) for s in start.unbind(1)], 1),
        parent=parent, extra=((column + 1) * sign).int(), iterations=5, coefficients=True,
    )  # fmt: skip
    own, begin = sides[parent], start[parent]
    own[torch.arange(6), unit] = sign
    begin[torch.arange(6), :, unit] = 0
    wanted = roots.bound(C[index], index=index, splits=own.to(torch.int8), start=begin, iterations=5, coefficients=True)
    assert_close(found.lower, wanted.lower, 1e-12)
    pairs = ((found.duals, wanted.duals), (found.coefficients, wanted.coefficients))
    for one, other in pairs:
        assert one is not None
        assert other is not None
        assert_close(
            one, torch.nn.functional.pad(other, (0, 1)).gather(2, compact.columns[index][:, None].expand_as(one)), 1e-9
        )
    scores = compact.babsr(found.coefficients, index)
    assert torch.equal(scores.isfinite(), (compact.columns < roots.lower.shape[1])[index][:, None].expand_as(scores))


def test_the_plain_pass_keeps_to_the_memory_limit() -> None:
    _, roots, C = small("reference")
    parent, extra = torch.tensor([1, 0, 0]), torch.tensor([2, -1, 0], dtype=torch.int32)
    splits = torch.zeros(2, roots.lower.shape[1], dtype=torch.int8)
    options = {"splits": splits, "parent": parent, "extra": extra, "iterations": 3, "corner": True}
    whole = roots.bound(C, **options)
    one_by_one = replace(roots, memory_limit=1).bound(C, **options)
    assert one_by_one.coefficients is None
    for found, wanted in zip(one_by_one, whole, strict=True):
        if wanted is not None:
            torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11)


def test_roots_from_bounds_that_are_known() -> None:
    case, roots, _ = small("reference")
    hidden = {name: (roots.lower[:, units], roots.upper[:, units]) for name, units in roots.units.items()}
    same = roots_of(case, "reference", hidden=hidden)
    assert torch.equal(same.lower, roots.lower)
    hidden.pop("0")
    with pytest.raises(ValueError, match="hidden: no bounds of layer '0'"):
        roots_of(case, "reference", hidden=hidden)


def test_nothing_has_a_gradient() -> None:
    net = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
    roots = Roots.of(glsk.BoundedModule(net, (3,)), torch.zeros(2, 3), torch.ones(2, 3))
    found = roots.bound(torch.ones(2, 1, 2), coefficients=True, corner=True)
    assert not any(value.requires_grad for value in found)


def test_one_member_is_wanted() -> None:
    case, *_ = small("reference")
    bounded = glsk.BoundedModule(case.net, case.input_shape)
    twice = {name: value.expand(2, *value.shape[1:]) for name, value in case.params.items()}
    with pytest.raises(ValueError, match="params: expected one member, got 2"):
        Roots.of(bounded, case.x_L, case.x_U, params=twice)


def small(backend: str) -> tuple[Case, Roots, Tensor]:
    """A convolution, a linear layer and an output over three images, and rows of them."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 3, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(27, 7), nn.ReLU(), nn.Linear(7, 4)
    ).double()
    params = {name: 1.5 * value.detach()[None] for name, value in net.named_parameters()}
    x = torch.rand(3, 1, 6, 6, dtype=torch.float64)
    case = Case(net, (1, 6, 6), params, x - 0.3, x + 0.3, None)
    return case, roots_of(case, backend), rows_of(case, 3)


def test_tightened_bounds_are_moved_outward_before_they_are_used():
    torch.manual_seed(2)
    sizes = ((4, 8), (8, 8), (8, 8), (8, 2))
    net = nn.Sequential(*(module for n, k in sizes for module in (nn.Linear(n, k), nn.ReLU())))[:-1].double()
    for parameter in net.requires_grad_(False).parameters():
        parameter *= 3
    low = torch.randn(1, 4, dtype=torch.float64)
    roots = Roots.of(glsk.BoundedModule(net, (4,)), low, low + 0.5)
    plain, moved = roots.tightened(), roots.tightened(outward=torch.full_like(roots.lower, 1e-3))
    assert (moved.lower >= roots.lower).all()
    change = (plain.lower - moved.lower)[0]
    second, third = change[8:16], change[16:]
    gained = (plain.lower - roots.lower)[0, 8:16] > 1e-3
    assert gained.sum() > 2
    assert torch.allclose(second[gained], torch.tensor(1e-3).double())
    assert (third > 1.001e-3).any()  # its lines were made of the second's bounds, moved
