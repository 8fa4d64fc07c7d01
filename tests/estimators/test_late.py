"""PGPE that learns what a step found only when the next one is queued; on the CPU, where nothing else differs."""

import pytest
import torch
from torch.nn.utils import parameters_to_vector

from glsk import NumericalError
from glsk.objectives.base import Objective
from tests.estimators.stages import CLASSES, SHAPE, build, small_net

KINDS = [("adam", "none"), ("adam", "centered"), ("clipup", "none"), ("clipup", "centered"), ("adam", "control")]


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Nets this small only lose by sharing; and the cores may be shared already."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_stage(late, optimizer="adam", ranking="none", x=None, y=None):
    """``ranking``: "control" is none, with a control variate."""
    net = small_net()
    x = torch.rand(12, *SHAPE) if x is None else x
    y = torch.randint(0, CLASSES, (len(x),)) if y is None else y
    kind, more = ("pgpe-cv", {}) if ranking == "control" else ("pgpe", {"ranking": ranking})
    return build(
        kind, net, (x, y), late=late, backend="reference", epochs=5, batch_size=6, popsize=20, stdev_init=0.05, lr=0.1,
        milestones=(2,), optimizer=optimizer, **more,
    )  # fmt: skip


def everything(stage):
    """Centre, standard deviation and optimiser, as they are, bit for bit."""
    optimizer = stage.algorithm.optimizer
    if stage.settings.optimizer == "clipup":
        moments = [optimizer._velocity]
    else:
        moments = [value for one in optimizer.state_dict()["state"].values() for value in one.values()]
    return [tensor.clone() for tensor in (stage._status("center"), stage._status("stdev"), *moments)]


def same(a, b):
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.fixture
def spoil(monkeypatch):
    """From the given call on, one member's loss is not finite."""
    original = Objective.__call__

    def start(value, after):
        calls = []

        def spoiled(self, batch, params=None):
            losses = original(self, batch, params)
            if params.requires_grad:  # the control variate's own
                return losses
            calls.append(1)
            if len(calls) == after + 1:
                losses[3] = value
            return losses

        monkeypatch.setattr(Objective, "__call__", spoiled)

    return start


@pytest.mark.parametrize(("optimizer", "ranking"), KINDS)
def test_the_same_numbers(optimizer, ranking):
    prompt, late = (make_stage(late, optimizer, ranking) for late in (False, True))
    readings = []
    for index in range(6):
        found = prompt.step(index)
        readings.append((found, late.step(index)))
    for found, reading in readings:
        assert {n: v for n, v in reading.items() if not n.endswith("_s")} == {
            n: v for n, v in found.items() if not n.endswith("_s")
        }
        assert 0 < reading["bounds_s"] < reading["step_s"]
    assert same(everything(prompt), everything(late))


@pytest.mark.parametrize(("optimizer", "ranking"), KINDS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("bad", [0, 1, 3])
def test_a_loss_that_is_not_finite_leaves_no_trace(spoil, optimizer, ranking, value, bad):
    stage = make_stage(True, optimizer, ranking)
    spoil(value, bad)
    for index in range(bad + 1):
        stage.step(index)
    before = everything(stage)  # nothing has followed the bad losses yet
    with pytest.raises(
        NumericalError, match=rf"pgpe(-cv)?: the loss of step {bad + 1} is (nan|inf); nothing was updated"
    ):
        stage.step(bad + 1)
    assert same(everything(stage), before)


@pytest.mark.parametrize("what", ["settle", "export", "state"])
def test_whatever_reads_the_weights_judges_the_last_step_first(spoil, what):
    stage = make_stage(True)
    spoil(float("nan"), 1)
    stage.step(0)
    stage.export()
    before = parameters_to_vector(stage.job.net.parameters()).detach().clone()
    stage.step(1)
    with pytest.raises(NumericalError, match="step 2"):
        getattr(stage, what)()
    assert torch.equal(parameters_to_vector(stage.job.net.parameters()), before)


def test_training_can_go_on_after_an_update_was_taken_back(spoil):
    stage = make_stage(True)
    spoil(float("nan"), 2)
    for index in range(3):
        stage.step(index)
    with pytest.raises(NumericalError):
        stage.step(3)
    for index in range(3, 6):
        assert stage.step(index)["loss"] < float("inf")
    stage.settle()


def test_weights_that_overflow_are_reported_with_the_step():
    stage = make_stage(True)
    stage.step(0)
    stage.algorithm._distribution.parameters["mu"].fill_(3e38)
    stage.step(1)
    with pytest.raises(NumericalError, match="pgpe: the loss of step 2 is"):
        stage.step(2)


@pytest.mark.parametrize("restored_late", [False, True])
def test_a_restored_stage_goes_on_with_the_same_bits(restored_late):
    stage = make_stage(True)
    for index in range(4):
        stage.step(index)
    stage.export()
    tensors, meta = stage.state()
    tensors = {name: value.clone() for name, value in tensors.items()}
    weights = [p.detach().clone() for p in stage.job.net.parameters()]
    expected = [stage.step(index)["loss"] for index in range(4, 8)]

    again = make_stage(restored_late)
    for p, value in zip(again.job.net.parameters(), weights, strict=True):
        p.data.copy_(value)
    again.restore(tensors, meta, 4)
    assert not again.drifted
    assert [again.step(index)["loss"] for index in range(4, 8)] == expected
    assert same(everything(again), everything(stage))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"x": torch.full((6, *SHAPE), 1.5)}, "images"),
        ({"x": torch.full((6, *SHAPE), float("nan"))}, "images"),
        ({"y": torch.full((12,), CLASSES)}, "labels must lie"),
        ({"y": torch.full((12,), -1)}, "labels must lie"),
    ],
)
def test_data_that_no_step_will_check_is_checked_before(bad, message):
    with pytest.raises(ValueError, match=message):
        make_stage(True, **bad)
    make_stage(False, **bad)
