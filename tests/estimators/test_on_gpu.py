"""Training on a GPU; without one every test is skipped. What can be seen without is in test_late and test_waits."""

import numpy as np
import pytest
import torch

from glsk import NumericalError, backends, models
from glsk.objectives.base import Objective
from glsk.training.batches import Batches
from glsk.training.metrics import read_metrics
from tests.estimators.stages import build
from tests.training.runs import config, run
from tests.waits import no_synchronisation

pytestmark = pytest.mark.gpu
SHAPE = (3, 12, 12)


def make_stage(late=None, device="cuda", **settings):
    settings = {"batch_size": 16, "popsize": 8, "epochs": 10, "anneal_epochs": 1, **settings}
    net = models.build("cnn3", SHAPE, 10, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), seed=1).to(device)
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(50, *SHAPE, generator=generator), torch.arange(50) % 10
    kind = "pgpe-cv" if settings.pop("control", False) else "pgpe"
    return build(kind, net, (x, y), classes=10, late=late, device=device, **settings)


def standing(stage):
    return stage._status("center").clone(), stage._status("stdev").clone()


@pytest.mark.parametrize("method", ["IBP", "HBox", "CROWN-IBP", "CROWN"])
@pytest.mark.parametrize("backend", ["auto", "triton"])
def test_no_step_waits_with_any_method(method, backend):
    if backend != "auto" and (reason := backends.why_missing(backend)) is not None:
        pytest.skip(reason)
    stage = make_stage(objective=method, backend=backend)
    for index in range(2):  # kernels are compiled, the optimiser makes its state
        stage.step(index)
    with no_synchronisation():
        for index in range(2, 8):
            stage.step(index)
    stage.settle()


@pytest.mark.parametrize("augment", [False, True])
@pytest.mark.parametrize("optimizer", ["adam", "clipup"])
@pytest.mark.parametrize("ranking", ["none", "centered"])
def test_no_step_waits_with_any_update(optimizer, ranking, augment):
    stage = make_stage(optimizer=optimizer, ranking=ranking, augment=augment)
    for index in range(2):
        stage.step(index)
    with no_synchronisation():
        for index in range(2, 8):
            stage.step(index)
    stage.settle()


def test_a_step_that_is_not_late_would_be_caught():
    stage = make_stage(late=False)
    stage.step(0)
    with no_synchronisation(), pytest.raises(RuntimeError, match="synchroniz"):
        stage.step(1)


@pytest.mark.parametrize("optimizer", ["adam", "clipup"])
def test_late_or_not_the_numbers_are_the_same(optimizer):
    prompt, late = (make_stage(late, optimizer=optimizer, augment=True) for late in (False, True))
    readings = [(prompt.step(index), late.step(index)) for index in range(7)]
    for found, reading in readings:
        assert all(found[name] == reading[name] for name in found if not name.endswith("_s"))
        assert 0 < reading["bounds_s"] < reading["step_s"]
    assert all(torch.equal(a, b) for a, b in zip(standing(prompt), standing(late), strict=True))


def test_batches_are_those_of_the_cpu():
    x, y = torch.rand(50, *SHAPE), torch.arange(50) % 10
    for step in (0, 1, 4):
        wanted, found = (Batches(x, y, 16, 0, augmented=True, device=d).batch(step) for d in ("cpu", "cuda"))
        assert all(torch.equal(a, b.cpu()) for a, b in zip(wanted, found, strict=True))


def test_a_loss_that_is_not_finite_leaves_no_trace(monkeypatch):
    stage = make_stage()
    for index in range(3):
        stage.step(index)
    original = Objective.__call__
    monkeypatch.setattr(Objective, "__call__", lambda *args: original(*args) * float("nan"))
    stage.step(3)
    monkeypatch.setattr(Objective, "__call__", original)
    before = standing(stage)
    with pytest.raises(NumericalError, match="step 4 is nan"):
        stage.step(4)
    assert all(torch.equal(a, b) for a, b in zip(standing(stage), before, strict=True))


def test_a_restored_stage_goes_on_with_the_same_bits():
    stage = make_stage()
    for index in range(4):
        stage.step(index)
    stage.export()
    tensors, meta = stage.state()
    tensors = {name: value.clone() for name, value in tensors.items()}
    weights = {name: value.clone() for name, value in stage.job.net.state_dict().items()}
    expected = [stage.step(index)["loss"] for index in range(4, 8)]
    again = make_stage()
    again.job.net.load_state_dict(weights)
    again.restore(tensors, meta, 4)
    assert not again.drifted
    assert [again.step(index)["loss"] for index in range(4, 8)] == expected


def whole_run(folder, device):
    random = np.random.RandomState(0)
    x, y = random.rand(60, 8, 8), np.arange(60) % 10
    np.savez(folder / "tiny.npz", x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:])
    settings = config(folder / "tiny.npz", device=device, warm_epochs=1, checkpoint_every=5, eval_every=4)
    run(settings, folder / "out")
    return read_metrics(folder / "out" / "metrics.jsonl")


def test_a_run_writes_every_step_in_order(tmp_path):
    pgpe = [record for record in whole_run(tmp_path, "cuda") if record["stage"] == "pgpe"]
    assert [record["step"] for record in pgpe] == list(range(2, 14))
    assert all(0 < record["bounds_s"] < record["step_s"] for record in pgpe)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two devices")
def test_a_run_on_the_second_gpu_leaves_the_first_alone(tmp_path):
    before = torch.cuda.memory_stats(0).get("allocation.all.allocated", 0)
    whole_run(tmp_path, "cuda:1")
    assert torch.cuda.current_device() == 0
    assert torch.cuda.memory_stats(0).get("allocation.all.allocated", 0) == before
