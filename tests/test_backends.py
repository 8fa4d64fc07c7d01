"""Which backends are here, and how a missing or unsuitable one is refused."""

import os

import pytest
import torch
from torch import nn

import glsk
from glsk import backends, ops

BOUNDED = glsk.BoundedModule(nn.Linear(3, 2), (3,))
X = torch.rand(2, 3)


def test_every_backend_is_reported() -> None:
    report = backends.available()
    assert set(report) == {"reference", "cpu", "triton", "cuda"}
    assert report["reference"] is None
    assert all(reason is None or len(reason) > 10 for reason in report.values())


@pytest.mark.skipif(os.environ.get("GLSK_REQUIRE_CPU") != "1", reason="GLSK_REQUIRE_CPU is not 1")
def test_the_compiled_cpu_backend_is_here() -> None:
    """Set where a compiler is known to be: the tests of the CPU backend must then not quietly be left out."""
    assert backends.why_missing("cpu") is None
    assert backends.resolve("auto", torch.device("cpu"), torch.float32) == "cpu"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_auto_takes_the_fastest_that_is_here(dtype: torch.dtype) -> None:
    wanted = "cpu" if backends.why_missing("cpu") is None else "reference"
    assert backends.resolve("auto", torch.device("cpu"), dtype) == wanted
    assert backends.resolve("AUTO", torch.device("cpu"), dtype) == wanted


@pytest.mark.parametrize("name", [n for n, reason in backends.available().items() if reason is not None])
def test_a_missing_backend_says_why(name: str) -> None:
    reason = backends.why_missing(name)
    with pytest.raises(glsk.BackendUnavailableError) as caught:
        BOUNDED.compute_bounds(X, eps=0.1, backend=name)
    assert f"backend {name!r} is not available" in str(caught.value)
    assert reason in str(caught.value)
    assert isinstance(caught.value, RuntimeError)


def test_auto_falls_back_when_the_native_part_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "why_missing", lambda name: None if name == "reference" else "not built")
    resolve = backends.resolve.__wrapped__
    assert resolve("auto", torch.device("cpu"), torch.float32) == "reference"
    with pytest.raises(glsk.BackendUnavailableError, match="not built"):
        resolve("cpu", torch.device("cpu"), torch.float32)


def test_a_device_that_a_backend_does_not_serve_is_refused() -> None:
    with pytest.raises(glsk.BackendUnavailableError, match=r"'reference' serves cpu.*tensors are float32 on meta"):
        backends.resolve("reference", torch.device("meta"), torch.float32)
    with pytest.raises(glsk.BackendUnavailableError, match="tensors are float16 on cpu"):
        backends.resolve("reference", torch.device("cpu"), torch.float16)


@pytest.mark.parametrize("name", ["gpu", "", "references"])
def test_an_unknown_backend_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"backend: unknown .*; known: auto, reference, cpu, triton, cuda"):
        BOUNDED.compute_bounds(X, eps=0.1, backend=name)


@pytest.mark.parametrize("name", [None, 3])
def test_a_backend_is_a_string(name: object) -> None:
    with pytest.raises(TypeError, match="backend: expected a string"):
        BOUNDED.compute_bounds(X, eps=0.1, backend=name)


@pytest.mark.parametrize("name", [n for n, reason in backends.available().items() if reason is None])
def test_a_backend_says_which_ops_it_serves(name: str) -> None:
    backends._BACKENDS[name].load()
    assert backends._BACKENDS[name].ops == {op.name for op in ops.ALL if op.implemented(name)}
    assert backends._BACKENDS[name].gradients == {op.name for op in ops.ALL if op.has_backward(name)}
