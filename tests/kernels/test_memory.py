"""What a call to the Triton backend allocates stays under its ``memory_limit``."""

import pytest
import torch

import glsk
from glsk import models, ops, tiling
from tests.meter import metered
from tests.support import METHODS

REASON = glsk.backends.why_missing("triton")
pytestmark = pytest.mark.skipif(
    REASON is not None or torch.cuda.is_available(), reason=REASON or "CPU tensors stand for those of a GPU"
)

SHAPE = (1, 28, 28)
MEMBERS, SAMPLES = 6, 10


@pytest.fixture(autouse=True)
def _no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Launchers allocate, but launch nothing, as for an H100."""
    from glsk.kernels import back_substitution, config

    kind = type(back_substitution.back_substitution_kernel)
    monkeypatch.setattr(kind, "__getitem__", lambda *_: lambda *args, **options: None)
    monkeypatch.setattr(config, "programs", lambda device: 132)


def arguments(net: str) -> tuple[glsk.BoundedModule, dict[str, object]]:
    bounded = glsk.BoundedModule(models.build(net, SHAPE), SHAPE)
    return bounded, {
        "x": torch.rand(SAMPLES, *SHAPE),
        "eps": 0.1,
        "clip": (0.0, 1.0),
        "C": glsk.margins(torch.arange(SAMPLES) % 10).float(),
        "params": torch.randn(MEMBERS, bounded.num_parameters),
        "backend": "triton",
        "check_finite": False,
    }


def need_of(bounded: glsk.BoundedModule, spec_rows: int | None = 9) -> tiling.Footprint:
    return tiling.footprint(bounded.chain.geometry, spec_rows, "triton", torch.device("cpu"), torch.float32, SAMPLES)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("net", "extra"), [("cnn3", 0), ("cnn3", 2e6), ("cnn3", 1e7), ("cnn5", 0), ("cnn5", 3e7)])
def test_a_call_stays_under_its_limit(net: str, extra: float, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bounded, given = arguments(net)
    limit = need_of(bounded).least + int(extra)
    with metered(monkeypatch) as meter:
        lower, upper = bounded.compute_bounds(**given, method=method, memory_limit=limit)
    outputs = lower.nbytes + upper.nbytes
    assert outputs < meter.peak <= limit + outputs
    del given["C"]
    limit = need_of(bounded, None).least + int(extra)
    with metered(monkeypatch) as meter:
        found = bounded.intermediate_bounds(**given, method=method, memory_limit=limit)
    assert meter.peak <= limit + sum(bound.nbytes for pair in found.values() for bound in pair)


def test_the_count_is_close_to_what_is_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a limit would buy less than it could."""
    bounded, given = arguments("cnn5")
    need = need_of(bounded)
    with metered(monkeypatch) as meter:
        bounded.compute_bounds(**given, memory_limit=1 << 34)
    counted = need.bounds(MEMBERS, SAMPLES) + need.workspace.scratch(MEMBERS * SAMPLES)
    assert 0.6 * counted < meter.peak


def test_too_small_a_limit_is_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    bounded, given = arguments("cnn3")
    least = need_of(bounded).least
    for op in ops.ALL:
        monkeypatch.setattr(op, "_implementations", {})
    with pytest.raises(ValueError, match=rf"memory_limit: {least - 1} bytes .* at least {least} bytes"):
        bounded.compute_bounds(**given, memory_limit=least - 1)
    del given["C"]
    with pytest.raises(ValueError, match=r"memory_limit: 1 bytes .* at least \d+ bytes"):
        bounded.intermediate_bounds(**given, memory_limit=1)


def test_fewer_programs_are_launched_where_the_limit_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    from glsk.kernels import passes

    bounded, given = arguments("cnn3")
    asked: list[int] = []
    granted = passes._granted
    monkeypatch.setattr(passes, "_granted", lambda plan: asked.append(granted(plan)) or asked[-1])
    bounded.compute_bounds(**given, memory_limit=need_of(bounded).least)
    assert min(asked) == 1
    asked.clear()
    bounded.compute_bounds(**given)
    assert min(asked) > 132
