"""The CPU's bounds of subproblems: the reference's by every instruction set, whatever threads and neighbours are."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

import glsk
from glsk.bounds.subproblems import Roots
from tests.bounds.test_subproblems import LEAKS, roots_of, rows_of, small
from tests.chains import Case, cases
from tests.support import NATIVE, TOLERANCE, assert_close

if "cpu" not in NATIVE:
    pytest.skip("no CPU kernels in this build", allow_module_level=True)

from glsk import _C
from glsk.cpu import forward
from glsk.ops.branch_scratch import branch_scratch

COUNT = 19
"""Subproblems of two rows: more than one tile, the last one not full."""


def subproblems(case: Case, units: int, sparse: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images, splits (of any sign, also those that no input meets), starts and rows."""
    generator = torch.Generator().manual_seed(units)
    index = torch.arange(COUNT) * len(case.x_L) // COUNT
    splits = torch.randint(-2, 3, (COUNT, units), generator=generator).div(2, rounding_mode="trunc").to(torch.int8)
    C = rows_of(case, COUNT)
    if sparse:  # rows of a single output, which depend on a window of each layer
        C = torch.zeros_like(C).scatter_(2, torch.randint(0, C.shape[2], (1, 2, 1), generator=generator), 1.0)
        C = C[:1].expand(COUNT, -1, -1).contiguous()
        splits[:, torch.rand(units, generator=generator) < 0.9] = 0
    return index, splits, torch.rand(COUNT, 2, units, generator=generator), C


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(("dtype", "iterations"), [(torch.float64, 4), (torch.float32, 2)])
@given(case=cases(samples=(1, 3), leaks=LEAKS, pools=True))
@settings(max_examples=3)
def test_it_equals_the_reference(isa: str, dtype: torch.dtype, iterations: int, sparse: bool, case: Case) -> None:
    assert _C.isa() == isa
    reference, roots = roots_of(case, "reference"), roots_of(case, "cpu", dtype)
    roots = replace(roots, lower=reference.lower.to(dtype), upper=reference.upper.to(dtype))
    reference = replace(reference, lower=roots.lower.double(), upper=roots.upper.double())
    index, splits, start, C = subproblems(case, roots.lower.shape[1], sparse)
    C, start = C.to(dtype), start.to(dtype)
    options = {"index": index, "splits": splits, "iterations": iterations, "coefficients": True}
    for first in (start, None):
        wide = None if first is None else first.double()
        wanted = reference.bound(C.double(), start=wide, **options)
        found = roots.bound(C, start=first, **options)
        assert_close(found.lower, wanted.lower, TOLERANCE[dtype])
        if dtype == torch.float64 and roots.lower.shape[1]:
            for one, other in zip(found[1:3], wanted[1:3], strict=True):
                assert_close(one, other, 1e-7)


@pytest.mark.parametrize("mixed", [False, True])
@given(case=cases(samples=(1, 3), leaks=LEAKS, pools=True))
@settings(max_examples=3)
def test_columns_and_parents_are_as_the_reference_has_them(isa: str, mixed: bool, case: Case) -> None:
    assert _C.isa() == isa
    roots, reference = (roots_of(case, backend) for backend in ("cpu", "reference"))
    wide = torch.rand(roots.lower.shape, generator=torch.Generator().manual_seed(0)) < 0.6
    wide |= (roots.lower < 0) & (roots.upper > 0)
    units = roots.lower.shape[1]
    columns = torch.where(wide, torch.arange(units), units).sort(dim=1).values[:, : int(wide.sum(1).max())].contiguous()
    width = columns.shape[1]
    index, splits, start, C = subproblems(case, width, False)
    index = index[torch.randperm(COUNT, generator=torch.Generator().manual_seed(1))] if mixed else index
    generator = torch.Generator().manual_seed(2)
    options = {
        "parent": torch.randint(0, 5, (COUNT,), generator=generator).sort().values,
        "extra": torch.randint(-width, width + 1, (COUNT,), generator=generator, dtype=torch.int32),
        "iterations": 3, "coefficients": True, "corner": True,
    }  # fmt: skip
    for first in (start[:5].double(), None):
        wanted, found = (
            one.compact(columns).bound(C, index=index, splits=splits[:5], start=first, **options)
            for one in (reference, roots)
        )
        assert_close(found.lower, wanted.lower, TOLERANCE[torch.float64])
        if width:
            assert_close(found.duals, wanted.duals, 1e-7)
            assert_close(found.coefficients, wanted.coefficients, 1e-7)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_bits_are_those_of_any_number_of_threads(dtype: torch.dtype) -> None:
    case, *_ = small("cpu")
    roots = roots_of(case, "cpu", dtype)
    index, splits, start, C = subproblems(case, roots.lower.shape[1], False)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            options = {"splits": splits, "start": start.to(dtype), "iterations": 6}
            found.append(
                roots.bound(
                    C.repeat(1, 4, 1).to(dtype),
                    index=index,
                    coefficients=True,
                    corner=True,
                    **{**options, "start": start.repeat(1, 4, 1).to(dtype)},
                )
            )
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        for one, same in zip(found[0], other, strict=True):
            assert torch.equal(one, same)


def test_a_problem_does_not_depend_on_its_neighbours() -> None:
    _, roots, C = small("cpu")
    C = C.repeat(20, 2, 1)
    splits = torch.randint(-1, 2, (60, roots.lower.shape[1]), generator=torch.Generator().manual_seed(0)).to(torch.int8)
    options = {"iterations": 5, "coefficients": True, "corner": True}
    index = torch.arange(60) % 3
    whole = roots.bound(C, index=index, splits=splits, **options)
    for b in (0, 7, 59):
        part = slice(b, b + 1)
        alone = roots.bound(C[part], index=index[part], splits=splits[part], **options)
        for one, other in zip(alone, whole, strict=True):
            torch.testing.assert_close(one, other[part], rtol=1e-11, atol=1e-12)


def test_threads_are_those_that_the_memory_limit_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    _, roots, C = small("cpu")
    one = branch_scratch(roots.chain.geometry, torch.float64)
    assert one > 1024 * roots.lower.shape[1]
    ran, kernel = [], forward.kernel
    monkeypatch.setattr(forward, "kernel", lambda *of: lambda *given: (ran.append(given[-1]), kernel(*of)(*given)))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        wanted = roots.bound(C, iterations=3).lower
        for limit in (one, 3 * one, 100 * one):
            assert torch.equal(replace(roots, memory_limit=limit).bound(C, iterations=3).lower, wanted)
        plain = replace(roots, memory_limit=one - 1).bound(C, iterations=3).lower
    finally:
        torch.set_num_threads(before)
    assert ran == [4, 1, 3, 4]  # and not where there is no room for one
    assert_close(plain, wanted, 1e-9)


def test_the_kernels_are_there() -> None:
    assert glsk.ops.branch_pass.implemented("cpu")


@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("size", [8, 9])
def test_planes_are_as_the_reference_has_them(isa: str, size: int, compact: bool) -> None:
    assert _C.isa() == isa
    generator = torch.Generator().manual_seed(size)
    net = glsk.models.build("cnn3", (2, size, size), 3, seed=1).double()
    x = torch.rand(3, 2, size, size, generator=generator).double()
    bounded = glsk.BoundedModule(net, (2, size, size))
    both = [Roots.of(bounded, x - 0.1, x + 0.1, backend=backend) for backend in ("cpu", "reference")]
    planes = torch.randn(3, both[0].chain.geometry[0].out_features, 51, generator=generator).double()
    planes[..., -1].masked_fill_(torch.rand(planes.shape[:2], generator=generator) < 0.3, torch.inf)
    both = [replace(one.compact() if compact else one, planes=planes) for one in both]
    columns = both[0].columns
    width = both[0].lower.shape[1] if columns is None else columns.shape[1]
    index = torch.arange(COUNT) * 3 // COUNT
    splits = torch.randint(-2, 3, (COUNT, width), generator=generator).div(2, rounding_mode="trunc").to(torch.int8)
    options = {"splits": splits, "start": torch.rand(COUNT, 2, width, generator=generator).double()}
    C = torch.randn(COUNT, 2, 3, generator=generator).double()
    for where in (index, index[torch.randperm(COUNT, generator=generator)]):  # tiles of one image, and of several
        for iterations in (1, 4):
            how = {"index": where, "iterations": iterations, "coefficients": True, "corner": True}
            for found, wanted in zip(*(one.bound(C, **options, **how) for one in both), strict=True):
                assert_close(found, wanted, 1e-9)
