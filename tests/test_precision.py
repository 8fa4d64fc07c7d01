"""Which precision training and certification multiply in."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import glsk
from bench import precision as bench_precision
from bench.workloads import workload
from glsk import ops, precision, verify
from glsk.objectives.base import MiniBatch
from glsk.objectives.robust import Robust
from glsk.training import Config
from glsk.verify.evaluate import certify_batch
from glsk.verify.inspect import inspect_sample

ROOT = Path(__file__).resolve().parents[1]
NET = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 10))
BOUNDED = glsk.BoundedModule(NET, (1, 2, 2))


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The precisions in which the ops have been called."""
    found: set[str] = set()
    certify_batch(BOUNDED, torch.rand(1, 1, 2, 2), torch.tensor([0]), eps=0.0)  # loads the backend
    for op in ops.ALL:
        watched = {name: _noting(function, found) for name, function in op._implementations.items()}
        monkeypatch.setattr(op, "_implementations", watched)
        monkeypatch.setattr(op, "reference", _noting(op.reference, found))
    return found


def _noting(function, found):
    def call(*args: object) -> object:
        found.add(precision.precision())
        return function(*args)

    return call


@pytest.mark.parametrize("chosen", precision.NAMES)
def test_certification_never_leaves_float32_accuracy(chosen: str, used: set[str]) -> None:
    x, y = torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 2])
    expected = {chosen if chosen in ("tf32x3", "ieee") else "tf32x3"}
    with precision.using_precision(chosen):
        certify_batch(BOUNDED, x, y, eps=0.01)
        assert used == expected
        verify.evaluate(NET, x, y, eps=0.01, attack_restarts=0, methods=glsk.methods())
        inspect_sample(NET, x[0], 0, eps=0.01)
        assert used == expected
        assert precision.precision() == chosen


@pytest.mark.parametrize("chosen", precision.TRAINING)
def test_training_uses_the_precision_of_its_settings(chosen: str, used: set[str]) -> None:
    loss = Robust(BOUNDED, 10, method="CROWN", precision=Config(precision=chosen).precision)
    loss(MiniBatch(torch.rand(2, 1, 2, 2), torch.tensor([1, 2]), 0.1))
    assert chosen in used
    assert precision.precision() == "tf32x3"


def test_an_unknown_precision_is_refused() -> None:
    for refused in (precision.set_precision, lambda name: Config(precision=name)):
        with pytest.raises(ValueError, match="precision: unknown 'fp8'; known: tf32x3, bf16x3, fp16, tf32, ieee"):
            refused("fp8")


def test_a_precision_that_spoils_the_gradient_is_refused_in_training() -> None:
    with pytest.raises(ValueError, match="'tf32' is too coarse to train in; choose one of tf32x3, bf16x3, fp16, ieee"):
        Config(precision="tf32")


def test_the_recorded_comparison_allows_what_training_allows() -> None:
    rows = json.loads((ROOT / "bench" / "results" / "precision.json").read_text())["rows"]
    worst = {name: min(row["cosine"] for row in rows if row["precision"] == name) for name in precision.NAMES}
    assert {name for name, cosine in worst.items() if cosine >= bench_precision.LEAST} == set(precision.TRAINING)


def test_the_gradient_estimate_of_the_default_precision_is_that_of_float64() -> None:
    """DeepPoly on the PGD-trained CNN3: cosine at least 0.999."""
    work = workload("cnn3", members=8, samples=2)
    (found,) = bench_precision.compare(work, [Config().precision])
    assert found["cosine"] >= bench_precision.LEAST
    assert found["difference_error"] < 1e-3


def test_the_emulation_rounds() -> None:
    value = torch.tensor([1 + 2.0**-10, 1 + 2.0**-11, -1 - 2.0**-11])
    assert bench_precision.tf32(value).tolist() == [1 + 2.0**-10, 1.0, -1.0]
    assert bench_precision.bf16(value).tolist() == [1.0, 1.0, -1.0]
    high, low = bench_precision._two_parts(bench_precision.tf32, torch.tensor([1 / 3]))
    assert abs(float((high + low).double()) - float(torch.tensor(1 / 3))) < 2.0**-22
    before = ops.affine.transposed
    with bench_precision.emulated("tf32"):
        assert ops.affine.transposed is not before
    assert ops.affine.transposed is before
