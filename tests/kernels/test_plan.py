"""The shape of a pass: every product of a coefficient and a weight happens exactly once."""

import itertools

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

from glsk.kernels import config
from glsk.kernels.plan import _cuts, make_plan, spatial
from hypothesis import given
from hypothesis import strategies as st

from glsk.geometry import Geometry, linear


@st.composite
def axes(draw: st.DrawFn) -> tuple[int, int, int, int, int]:
    """kernel, stride, padding, image, out."""
    image, padding, stride = draw(st.integers(1, 12)), draw(st.integers(0, 3)), draw(st.integers(1, 4))
    kernel = draw(st.integers(1, min(6, image + 2 * padding)))
    return kernel, stride, padding, image, (image + 2 * padding - kernel) // stride + 1


@given(axis=axes(), size=st.integers(1, 12), origin=st.integers(-4, 12))
def test_blocks_cover_every_product_once(axis: tuple[int, int, int, int, int], size: int, origin: int) -> None:
    """q at its window's origin reaches i = q * stride - padding + t, for every kernel index t."""
    kernel, stride, padding, image, out = axis
    whole = size >= out
    q_window, q_origin = (out, 0) if whole else (size, origin)
    for cut in _cuts(kernel, stride, padding, image, out, q_window, whole):
        i_origin = 0 if cut.i_whole else q_origin * stride - padding
        shift = q_origin if cut.i_whole else 0
        found = []
        for block in range(cut.blocks):
            for phase in range(cut.phases):
                for tap in range(cut.taps):
                    q = block * cut.step + tap + cut.base - shift
                    i = block * cut.phases + phase + cut.offset
                    t = phase - tap * stride + cut.tap0
                    if 0 <= q < q_window and 0 <= i < cut.i_window and 0 <= t < kernel:
                        found.append((q + q_origin, i + i_origin))
                        assert found[-1][1] == found[-1][0] * stride - padding + t
        wanted = [
            (q, q * stride - padding + t)
            for q in range(q_origin, q_origin + q_window)
            for t in range(kernel)
            # a position outside the layer's output has coefficient 0 and may be left out
            if 0 <= q < out and 0 <= q * stride - padding + t < image
        ]
        inside = [(q, i) for q, i in found if 0 <= q < out and 0 <= i < image]
        assert sorted(inside) == sorted(wanted)


CNN = (
    Geometry(2, 9, 9, 3, 5, 5, 3, 3, 2, 2, 1, 1, 1),
    Geometry(3, 5, 5, 4, 3, 3, 3, 3, 2, 2, 1, 1, 1),
    linear(36, 7, relu=True),
    linear(7, 4, relu=False),
)


def test_a_linear_layer_after_a_convolution_is_a_convolution_over_the_image() -> None:
    _, _, dense, last = spatial(CNN)
    assert dense == Geometry(4, 3, 3, 7, 1, 1, 3, 3, 1, 1, 0, 0, 1)
    assert last == Geometry(7, 1, 1, 4, 1, 1, 1, 1, 1, 1, 0, 0, 0)
    assert [layer.out_features for layer in spatial(CNN)] == [layer.out_features for layer in CNN]


@pytest.mark.parametrize("aim", [config.HOPPER, config.AMPERE])
@pytest.mark.parametrize("from_C", [False, True])
def test_scratch_and_packed_weights_do_not_overlap(aim: config.Target, from_C: bool) -> None:
    plan = make_plan(CNN, from_C, 8, aim)
    assert plan.depth == (4 if from_C else 3)
    spans = [(stage.weight, stage.weight + 2 * stage.packed) for stage in plan.stages]
    spans += [(offset, offset + layer.out_channels) for offset, layer in zip(plan.bias_offsets, CNN, strict=True)]
    spans += [] if from_C else [(plan.start.first, plan.start.first + 4 * 7)]
    spans.sort()
    assert all(stop <= start for (_, stop), (start, _) in itertools.pairwise(spans))
    assert spans[-1][1] <= plan.packed
    held = (0, plan.rows * plan.start.units)
    for stage in plan.stages:
        assert stage.source == held[0]
        assert plan.rows * stage.source_units == held[1] - held[0]
        made = (stage.target, stage.target + plan.rows * stage.target_units)
        if stage is not plan.stages[-1]:
            assert made[1] <= plan.scratch
            assert made[0] >= held[1] or made[1] <= held[0]
        held = made


def test_scratch_stays_within_its_limit() -> None:
    for k in (1, 2, 3):
        plan = make_plan(CNN[: k + 1], False, 10**6, config.HOPPER)
        assert plan.rows == config.HOPPER.tile_rows
        assert 4 * plan.scratch <= config.HOPPER.scratch_bytes
