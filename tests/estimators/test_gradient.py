"""Estimators that are differentiated: the plain gradient, and the mean of those of perturbed networks."""

import pytest
import torch
from torch.nn.utils import parameters_to_vector

from glsk import NumericalError
from glsk.estimators.rgs import perturbed
from glsk.objectives.base import Objective
from glsk.seeds import stream
from tests.estimators.stages import build, small_images, small_net

SETTINGS = {"eps": 0.1, "epochs": 5, "batch_size": 6, "lr": 0.01, "milestones": (2,), "backend": "reference"}


class Infinite(torch.autograd.Function):
    """0, whose gradient is infinite."""

    @staticmethod
    def forward(ctx, x):
        return torch.zeros_like(x)

    @staticmethod
    def backward(ctx, grad):
        return grad * float("inf")


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make(kind, **settings):
    return build(kind, small_net(), small_images(), **{**SETTINGS, **settings})


def weights(stage):
    return parameters_to_vector(stage.job.net.parameters()).detach().clone()


def gradient(stage, at=None):
    """Of the first mini-batch's loss, [D]."""
    at = (weights(stage) if at is None else at).clone().requires_grad_(True)
    stage.objective(stage.job.minibatch(0), at[None]).sum().backward()
    return at.grad


def followed(stage):
    return parameters_to_vector([p.grad for p in stage.job.net.parameters()])


def test_the_plain_gradient_is_followed():
    stage = make("grad", grad_clip=0.0)
    expected, before = gradient(stage), weights(stage)
    found = stage.step(0)
    torch.testing.assert_close(followed(stage), expected)
    assert found["gradient_norm"] == pytest.approx(float(expected.norm()))
    moved = weights(stage) - before
    torch.testing.assert_close(moved, -0.01 * expected.sign(), rtol=1e-2, atol=1e-4)  # Adam's first step


@pytest.mark.parametrize("kind", ["grad", "rgs"])
def test_long_gradients_are_clipped(kind):
    free, stage = make(kind, grad_clip=0.0), make(kind, grad_clip=0.1)
    norm = free.step(0)["gradient_norm"]
    assert norm > 0.1
    assert stage.step(0)["gradient_norm"] == norm
    torch.testing.assert_close(followed(stage), followed(free) * 0.1 / norm)


@pytest.mark.parametrize("antithetic", [True, False])
def test_the_gradient_is_the_mean_over_perturbed_networks(antithetic):
    stage = make("rgs", members=4, stdev=0.05, antithetic=antithetic, grad_clip=0.0)
    draws = stream(stage.job.seed, "rgs", 0)
    members = perturbed(weights(stage), 4, 0.05, antithetic, draws)
    expected = torch.stack([gradient(stage, member) for member in members]).mean(0)
    found = stage.step(0)
    torch.testing.assert_close(followed(stage), expected)
    assert found["members"] == 4


def test_perturbations_have_the_deviation_and_come_in_pairs():
    centre, draws = torch.arange(5.0), torch.Generator().manual_seed(0)
    members = perturbed(centre, 4000, torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4]), True, draws) - centre
    torch.testing.assert_close(members[:2000], -members[2000:])
    torch.testing.assert_close(members.std(0), torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4]), rtol=0.05, atol=1e-6)
    alone = perturbed(centre, 3, 0.1, False, draws)
    assert alone.shape == (3, 5)


def test_perturbations_differ_from_step_to_step_and_by_seed():
    stage, other = make("rgs", lr=0.0), make("rgs", lr=0.0, seed=1)
    losses = [stage.step(index)["loss"] for index in range(0, 4, 2)]
    assert len({*losses, other.step(0)["loss"]}) == 3


@pytest.mark.parametrize("kind", ["grad", "rgs"])
def test_training_lowers_the_robust_loss(kind):
    stage = make(kind, eps=0.01, epochs=60, batch_size=12, milestones=(), lr=0.03)
    losses = [stage.step(index)["loss"] for index in range(stage.steps)]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("kind", ["grad", "rgs"])
def test_schedules_are_followed(kind):
    stage = make(kind, anneal_epochs=2, epochs=3)
    found = [stage.step(index) for index in range(6)]
    assert [one["lr"] for one in found] == pytest.approx([0.01] * 4 + [0.004] * 2)
    assert [one["eps"] for one in found] == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])
    assert all(one["bounds_s"] > 0 for one in found)


@pytest.mark.parametrize("kind", ["grad", "rgs"])
@pytest.mark.parametrize("clip", [0.0, 10.0])
@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_what_is_not_finite_is_not_followed(monkeypatch, kind, clip, what):
    stage = make(kind, grad_clip=clip)
    stage.step(0)
    before = weights(stage)
    original = Objective.__call__

    def spoiled(self, batch, params=None):
        losses = original(self, batch, params)
        return losses * float("nan") if what == "loss" else losses + Infinite.apply(losses)

    monkeypatch.setattr(Objective, "__call__", spoiled)
    name = "loss" if what == "loss" else "gradient norm"
    with pytest.raises(NumericalError, match=f"{kind}: the {name} of step 2 is .*; nothing was updated"):
        stage.step(1)
    assert torch.equal(weights(stage), before)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"members": 3}, "members: expected an even"),
        ({"members": 0}, "members: expected at least 1"),
        ({"stdev": 0.0}, "stdev: expected a positive"),
    ],
)
def test_bad_settings_are_named(bad, message):
    with pytest.raises(ValueError, match=message):
        make("rgs", **bad)
