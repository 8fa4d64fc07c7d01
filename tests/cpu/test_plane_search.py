"""The CPU's search for planes: the reference's by every instruction set, whatever neighbours and threads are."""

import pytest
import torch
from hypothesis import given, settings

from glsk import ops, workspace
from glsk.bounds.subproblems import Roots
from glsk.geometry import encode
from tests.bounds.test_subproblems import roots_of, small
from tests.chains import Case, cases
from tests.ops.test_registry import listed
from tests.support import NATIVE, assert_close

if "cpu" not in NATIVE:
    pytest.skip("no CPU kernels in this build", allow_module_level=True)

from glsk import _C

ROWS = 19
"""More than one tile of them, the last one not full."""


def arguments(roots: Roots, split: bool, iterations: int, sparse: bool = False) -> list[object]:
    """Rows of several images, which list most of their free units."""
    generator = torch.Generator().manual_seed(3)
    roots = roots.take(torch.arange(ROWS) % len(roots.lower))
    splits = torch.randint(-1, 2, roots.lower.shape, generator=generator) * (
        torch.rand(roots.lower.shape, generator=generator) < 0.2
    )
    first, last = roots.chain.geometry[0], roots.chain.geometry[-1].out_features
    splits = splits.to(torch.int8) if split else None
    units, shares = listed(first, roots.lower, roots.upper, splits)
    units[::2] = units[::2].masked_fill(units[::2] % 3 == 1, first.out_features).sort(dim=1).values
    rows = torch.randn(ROWS, last, generator=generator).to(roots.lower)
    if sparse:
        rows = torch.zeros_like(rows).scatter_(1, torch.arange(ROWS)[:, None] % last, 1.0)
    start = torch.rand(roots.lower.shape, generator=generator).to(roots.lower)
    weights = [list(t) for t in (roots.weights.weights, roots.weights.biases)]
    return [
        roots.x_L, roots.x_U, *weights, roots.lower, roots.upper, splits, rows, start, units, shares,
        encode(roots.chain.geometry), list(roots.chain.leaks), iterations,
    ]  # fmt: skip


def planar(case: Case) -> bool:
    """Whether there are units to list."""
    roots = roots_of(case, "reference")
    chain = roots.chain
    n = chain.geometry[0].out_features
    unstable = (roots.lower[:, :n] < 0) & (roots.upper[:, :n] > 0)
    return len(chain.geometry) > 1 and bool(chain.geometry[0].relu) and chain.leaks[0] == 0 and bool(unstable.any())


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("sparse", [False, True])
@given(case=cases(samples=(1, 3)).filter(planar))
@settings(max_examples=4)
def test_it_equals_the_reference(isa: str, split: bool, sparse: bool, case: Case) -> None:
    assert _C.isa() == isa
    for iterations in (1, 2, 5):
        operands = arguments(roots_of(case, "cpu"), split, iterations, sparse)
        found, wanted = (ops.plane_search(*operands, backend=backend) for backend in ("cpu", "reference"))
        assert_close(found[0], wanted[0], 1e-7)
        # Units that no row depends on have no duals, and lose nothing.
        assert_close(found[1], torch.where(found[1] != 0, wanted[1], 0), 1e-3)
        assert_close(found[3], torch.where(found[3] != 0, wanted[3], 0), 1e-7)
        # What they are found with is what the bounds are of.
        again = [*operands[:8], found[1], operands[9], found[2], *operands[11:13], 1]
        assert_close(ops.plane_search(*again, backend="reference")[0], found[0], 1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_bits_are_those_of_any_number_of_threads(dtype: torch.dtype) -> None:
    case, *_ = small("cpu")
    operands = arguments(roots_of(case, "cpu", dtype), True, 7)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append(ops.plane_search(*operands, backend="cpu"))
        with workspace.grant(1):
            found.append(ops.plane_search(*operands, backend="cpu"))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(one, two) for one, two in zip(found[0], other, strict=True))
    assert bool((found[0][2] != operands[10]).any())
