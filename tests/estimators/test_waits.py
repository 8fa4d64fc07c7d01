"""No step of PGPE on a device waits for it."""

import pytest
import torch
from evotorch import algorithms, optimizers

from glsk import backends, models, transfer
from glsk.estimators import pgpe
from glsk.estimators.population import clipup
from glsk.estimators.population.problem import MembersProblem
from glsk.objectives.base import MiniBatch, Objective
from glsk.training import phases
from glsk.training.batches import Batches
from tests.estimators.stages import build
from tests.waits import WaitError, no_waits

SHAPE = (3, 8, 8)


@pytest.fixture
def log():
    """What happens in which order: the events made, each by its number, and waited for; and the evaluations."""
    return []


@pytest.fixture
def gpu(monkeypatch, log):
    """The meta device as if it were a GPU: it has no values, so whoever needs one is caught."""

    class Event:
        def __init__(self, enable_timing):
            self.number = sum(what == "event" for what, _ in log)
            log.append(("event", self.number))

        def record(self, stream):
            pass

        def synchronize(self):
            log.append(("wait", self.number))

        def elapsed_time(self, end):
            return 1.0

    evaluate = Objective.__call__

    def logged(self, *args):
        log.append(("evaluate", sum(what == "evaluate" for what, _ in log)))
        return evaluate(self, *args)

    monkeypatch.setattr(Objective, "__call__", logged)
    monkeypatch.setattr(transfer, "runs_behind", lambda device: torch.device(device).type == "meta")
    monkeypatch.setattr(pgpe, "runs_behind", transfer.runs_behind)
    monkeypatch.setattr(phases, "check_data", lambda *args: None)  # once, before the first step
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    monkeypatch.setattr(backends, "resolve", lambda *args: "reference")

    def manual_seed(self, seed):
        self._generator = torch.Generator().manual_seed(seed)  # there is none for the meta device

    monkeypatch.setattr(MembersProblem, "manual_seed", manual_seed)


def make_stage(late=None, **settings):
    defaults = {
        "device": "meta",
        "batch_size": 3,
        "popsize": 4,
        "anneal_epochs": 2,
        "augment": False,
        "epochs": 4,
        "backend": "auto",
    }
    net = models.build("cnn3", SHAPE, 4, mean=(0.1, 0.2, 0.3), std=(1, 2, 3)).to("meta")
    x, y = torch.rand(7, *SHAPE), torch.arange(7) % 4  # the last batch of an epoch is left out
    kind = "pgpe-cv" if settings.pop("control", False) else "pgpe"
    return build(kind, net, (x, y), classes=4, late=late, **{**defaults, **settings})


@pytest.mark.parametrize("method", ["IBP", "HBox", "CROWN-IBP", "CROWN"])
def test_a_step_with_any_method(gpu, method):
    stage = make_stage(objective=method)
    assert stage.late
    with no_waits():
        for index in range(5):
            stage.step(index)


@pytest.mark.parametrize("ranking", ["none", "centered"])
@pytest.mark.parametrize("optimizer", ["adam", "clipup"])
@pytest.mark.parametrize("augment", [False, True])
def test_a_step_with_any_update(gpu, optimizer, ranking, augment):
    stage = make_stage(optimizer=optimizer, ranking=ranking, augment=augment)
    with no_waits():
        for index in range(5):
            stage.step(index)


def test_a_step_is_waited_for_when_the_next_is_queued(gpu, log):
    stage = make_stage()
    ends = []
    with no_waits():
        for index in range(4):
            stage.step(index)
            ends.append(max(number for what, number in log if what == "event"))  # the last event of a step is its end
    for index, end in enumerate(ends[:-1]):
        assert log.index(("evaluate", index + 1)) < log.index(("wait", end))
        if index < 2:
            assert log.index(("wait", end)) < log.index(("evaluate", index + 2))
    assert ("wait", ends[-1]) not in log


def test_settling_reads_what_was_copied(gpu):
    stage = make_stage()
    with no_waits():
        reading = stage.step(0)
        stage.settle()
        assert set(reading) == {"loss", "loss_min", "stdev", "lr", "eps", "samples", "members", "step_s", "bounds_s"}


# Where a value would be read, glsk itself says that the stand-in for a GPU holds none.
READS_A_VALUE = pytest.raises((WaitError, ValueError), match=r"reads a value|on the meta device holds no values")


def test_a_step_that_is_not_late_waits(gpu):
    stage = make_stage(late=False)
    with no_waits(), READS_A_VALUE:
        stage.step(0)


def test_a_checked_loss_waits(gpu):
    stage = make_stage(late=False)
    loss, members = stage.problem._make_objective(), torch.zeros(4, stage.problem.solution_length, device="meta")
    with no_waits():
        batch = stage.job.minibatch(0)
        with READS_A_VALUE:
            loss(MiniBatch(batch.x, batch.y, 0.1), members)


def test_evotorchs_own_clipup_waits(gpu, monkeypatch):
    monkeypatch.setattr(clipup, "ClipUp", optimizers.ClipUp)
    stage = make_stage(optimizer="clipup")
    with no_waits():
        stage.step(0)
        with pytest.raises(WaitError, match="reads a value"):
            stage.step(1)


def test_limits_left_to_evotorch_wait(gpu, monkeypatch):
    own = algorithms.PGPE
    monkeypatch.setattr(algorithms, "PGPE", lambda *args, stdev_min, stdev_max, **rest: own(*args, **rest))
    stage = make_stage()
    with no_waits():
        stage.step(0)
        with pytest.raises(WaitError, match="copies -inf"):
            stage.step(1)


def test_a_batch_that_is_copied_waits(gpu):
    batches = Batches(torch.rand(7, *SHAPE), torch.arange(7) % 4, 3, 0)
    with pytest.raises(WaitError, match="a copy"), no_waits():
        batches.batch(0)[0].to("meta")


@pytest.mark.parametrize("members", [0, 2])
def test_a_step_with_a_control_variate(gpu, members):
    stage = make_stage(control=True, control_members=members)
    with no_waits():
        for index in range(5):
            stage.step(index)
