import pytest
import torch
from torch.nn.utils import parameters_to_vector

import glsk
from glsk import NumericalError
from glsk.objectives.base import Objective
from tests.estimators.stages import CLASSES, SHAPE, build, small_images, small_net


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Nets this small only lose by sharing; and the cores may be shared already."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_stage(net, **settings):
    defaults = {
        "eps": 0.1,
        "epochs": 5,
        "batch_size": 6,
        "popsize": 20,
        "stdev_init": 0.05,
        "lr": 0.1,
        "milestones": (2,),
        "backend": "reference",
    }
    return build("pgpe", net, small_images(), **{**defaults, **settings})


def weights(stage):
    stage.export()
    return parameters_to_vector(stage.job.net.parameters()).detach().clone()


def population(stage):
    return stage.algorithm.population.access_values(keep_evals=True).clone(), stage.losses().clone()


def test_members_are_antithetic_with_the_given_standard_deviation():
    stage = make_stage(small_net(), popsize=400)
    centre = weights(stage)
    stage.step(0)
    members, _ = population(stage)
    torch.testing.assert_close(members[0::2] - centre, centre - members[1::2])
    assert float((members[0::2] - centre).std()) == pytest.approx(0.05, rel=0.05)


def test_fitness_of_every_member_is_its_robust_loss_on_the_same_mini_batch():
    net = small_net()
    stage = make_stage(net)
    stage.step(0)
    members, losses = population(stage)
    x, y = (stage.job.minibatch(0).x, stage.job.minibatch(0).y)
    lower, _ = glsk.BoundedModule(net, SHAPE).compute_bounds(
        x, eps=0.1, clip=(0.0, 1.0), C=glsk.margins(y, CLASSES), params=members
    )
    torch.testing.assert_close(losses, glsk.robust_cross_entropy(lower))


def test_update_follows_the_papers_gradients():
    """Section 3.1. ClipUp's first step is the learning rate times the normalised gradient of the centre."""
    stage = make_stage(small_net(), optimizer="clipup", stdev_lr=0.3)
    centre = weights(stage)
    stage.step(0)
    members, r = (t.double() for t in population(stage))
    stage.step(1)
    noise = members[0::2] - centre
    plus, minus = r[0::2, None], r[1::2, None]
    gradient = (noise * (plus - minus)).sum(0)
    moved = (weights(stage) - centre).double()
    torch.testing.assert_close(moved, -0.1 * gradient / gradient.norm(), rtol=1e-3, atol=1e-5)

    sigma = 0.05
    gradient = (((plus + minus) / 2 - r.mean()) * (noise**2 - sigma**2) / sigma).mean(0)
    stdev = stage.algorithm.status["stdev"].double()
    torch.testing.assert_close(stdev - sigma, -0.3 * gradient, rtol=1e-3, atol=1e-7)
    assert stdev.std() > 0


def test_centred_ranking_uses_the_order_alone():
    stage = make_stage(small_net(), optimizer="clipup", ranking="centered")
    centre = weights(stage)
    stage.step(0)
    members, r = population(stage)
    stage.step(1)
    ranks = r.argsort().argsort().double() / (len(r) - 1) - 0.5
    gradient = ((members[0::2] - centre) * (ranks[0::2] - ranks[1::2])[:, None]).sum(0)
    moved = (weights(stage) - centre).double()
    torch.testing.assert_close(moved, -0.1 * gradient / gradient.norm(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("optimizer", ["adam", "clipup"])
def test_learning_rate_schedule_reaches_evotorch(optimizer):
    stage = make_stage(small_net(), optimizer=optimizer)
    rates = []
    for index in range(6):
        record = stage.step(index)
        group = stage.algorithm.optimizer.param_groups[0]
        assert group["lr"] == record["lr"]
        assert optimizer == "adam" or group["max_speed"] == 2 * record["lr"]
        rates.append(record["lr"])
    assert rates == pytest.approx([0.1] * 4 + [0.04] * 2)


def test_adams_first_step_is_the_learning_rate_everywhere():
    """Whatever the fitness' scale: Adam's epsilon must not drown evotorch's gradient, which carries sigma squared."""
    stage = make_stage(small_net(), stdev_init=1e-3, lr=1e-3)
    centre = weights(stage)
    stage.step(0)
    stage.step(1)
    moved = (weights(stage) - centre).abs()
    assert float(moved.median()) == pytest.approx(1e-3, rel=1e-2)
    assert moved.max() < 1.01e-3


def test_eps_is_annealed_by_the_step():
    stage = make_stage(small_net(), anneal_epochs=2)
    assert [stage.step(index)["eps"] for index in range(5)] == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1])


def test_training_lowers_the_robust_loss():
    stage = make_stage(small_net(), eps=0.01, epochs=100, lr=0.03, popsize=40, batch_size=12, milestones=())
    losses = [stage.step(index)["loss"] for index in range(stage.steps)]
    assert losses[-1] < 0.8 * losses[0]


def test_steps_are_limited():
    assert make_stage(small_net()).steps == 10
    assert make_stage(small_net(), max_steps=3).steps == 3


def test_restored_stage_goes_on_with_the_same_bits():
    stage = make_stage(small_net())
    for index in range(4):
        stage.step(index)
    stage.export()
    tensors, meta = stage.state()
    tensors = {name: value.clone() for name, value in tensors.items()}
    saved = [p.detach().clone() for p in stage.job.net.parameters()]
    expected = [stage.step(index)["loss"] for index in range(4, 8)]

    net = small_net()
    for p, value in zip(net.parameters(), saved, strict=True):
        p.data.copy_(value)
    again = make_stage(net)
    again.restore(tensors, meta, 4)
    assert not again.drifted
    assert [again.step(index)["loss"] for index in range(4, 8)] == expected
    assert torch.equal(weights(again), weights(stage))


def test_restoring_notices_that_the_bounds_differ_now():
    stage = make_stage(small_net())
    for index in range(2):
        stage.step(index)
    stage.export()
    tensors, meta = stage.state()
    again = make_stage(stage.job.net)
    again.restore(tensors, {**meta, "loss": meta["loss"] + 1e-6}, 2)
    assert again.drifted


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_before_the_update(monkeypatch, value):
    stage = make_stage(small_net())
    stage.step(0)
    original = Objective.__call__

    def spoiled(self, batch, params=None):
        losses = original(self, batch, params)
        losses[3] = value
        return losses

    monkeypatch.setattr(Objective, "__call__", spoiled)
    with pytest.raises(NumericalError, match=r"pgpe: the loss of step 2 is (nan|inf); nothing was updated"):
        stage.step(1)
    assert weights(stage).isfinite().all()
    assert stage.losses().isfinite().sum() == len(stage.losses()) - 1


def test_weights_that_overflow_are_reported_with_the_step():
    net = small_net()
    with torch.no_grad():
        net[1].weight.fill_(3e38)
    with pytest.raises(NumericalError, match=r"pgpe: .*step 1"):
        make_stage(net).step(0)


def test_without_a_mini_batch_nothing_is_evaluated():
    problem = make_stage(small_net()).problem
    with pytest.raises(ValueError, match=r"batch: set MembersProblem\.batch"):
        problem.evaluate(problem.generate_batch(2, empty=True))
    assert problem.batch is None


@pytest.mark.slow
def test_actors_give_the_same_fitnesses_and_updates():
    ray = pytest.importorskip("ray")
    runs = []
    try:
        for actors in (0, 2):
            stage = make_stage(small_net(), actors=actors)
            losses = []
            for index in range(3):
                stage.step(index)
                losses.append(population(stage)[1])
            runs.append((losses, weights(stage)))
            stage.close()
    finally:
        ray.shutdown()
    (plain, centre), (shared, shared_centre) = runs
    for a, b in zip(plain, shared, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=0)
    torch.testing.assert_close(centre, shared_centre)
