"""The control variate takes noise out of PGPE's estimate, and nothing else."""

import pytest
import torch

from glsk import NumericalError
from glsk.estimators.population.residuals import ControlledGaussian
from glsk.objectives.base import Objective
from tests.estimators.stages import build, small_images, small_net
from tests.estimators.test_gradient import Infinite

STDEV = 0.05
SETTINGS = {
    "eps": 0.1, "epochs": 5, "batch_size": 6, "popsize": 40, "stdev_init": STDEV, "lr": 0.1, "milestones": (),
    "backend": "reference",
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make(kind="pgpe-cv", **settings):
    return build(kind, small_net(), small_images(), **{**SETTINGS, **settings})


def gradients(stage):
    """What evotorch would follow for the current population."""
    population = stage.algorithm.population
    samples = population.access_values(keep_evals=True)
    return stage.algorithm._distribution.compute_gradients(
        samples, stage.losses(), objective_sense="min", ranking_method=None
    )


def plain_gradient(stage):
    batch = stage.job.minibatch(0)
    centre = stage._status("center").clone().requires_grad_(True)
    stage.objective(batch, centre[None]).sum().backward()
    return centre.grad


@pytest.fixture(scope="module")
def estimates():
    """Per pair, at one centre: PGPE's estimate and that with the control variate, [2, m, D]; the control variate."""
    stage = make(popsize=16_000)
    stage.step(0)
    noise = stage.algorithm.population.access_values(keep_evals=True)[0::2] - stage._status("center")
    losses = stage.losses()
    plain = noise * ((losses[0::2] - losses[1::2]) / 2)[:, None]
    v = plain_gradient(stage)
    controlled = noise * ((losses[0::2] - losses[1::2]) / 2 - noise @ v)[:, None] + STDEV**2 * v
    return stage, torch.stack([plain, controlled]).double() / STDEV**2, v.double()


def test_evotorch_follows_the_mean_over_pairs(estimates):
    stage, found, v = estimates
    torch.testing.assert_close(-gradients(stage)["mu"].double() / STDEV**2, found[1].mean(0), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(-stage.algorithm._distribution.control.double(), v, rtol=1e-5, atol=1e-7)


def scores(a, b):
    """Squared differences of two means [D] of independent samples [m, D], in units of their variance."""
    return (a.mean(0) - b.mean(0)) ** 2 / (a.var(0) / len(a) + b.var(0) / len(b))


def test_its_expectation_is_pgpes(estimates):
    """Each half of the pairs serves one estimator: 68 squared standard scores have the mean 1."""
    _, (plain, controlled), v = estimates
    half = len(plain) // 2
    assert float(scores(plain[:half], controlled[half:]).mean()) < 1.5
    # and this would notice a control variate that is followed as it is, or whose mean is not put back
    assert float(scores(controlled, torch.zeros_like(controlled) + v).mean()) > 3
    assert float(scores(plain[:half], controlled[half:] - v).mean()) > 3


def test_its_noise_is_the_residuals(estimates):
    stage, (plain, controlled), v = estimates
    share = float(controlled.var(0).sum() / plain.var(0).sum())
    assert share < 0.3
    centre = stage._status("center")
    noise = (stage.algorithm.population.access_values(keep_evals=True)[0::2] - centre).double()
    d = (stage.losses()[0::2] - stage.losses()[1::2]).double() / 2
    residual = float(((d - noise @ v) ** 2).sum() / (d**2).sum())
    assert share == pytest.approx(residual, rel=0.2)


def test_the_share_is_told_in_every_step():
    stage = make()
    for index in range(3):
        found = stage.step(index)
        noise = stage.algorithm.population.access_values(keep_evals=True)[0::2] - stage._status("center")
        d = (stage.losses()[0::2] - stage.losses()[1::2]) / 2
        v = -stage.algorithm._distribution.control
        assert found["residual"] == pytest.approx(float(((d - noise @ v) ** 2).sum() / (d**2).sum()), rel=1e-4)
        assert found["control_norm"] == pytest.approx(float(v.norm()))


@pytest.mark.parametrize("members", [0, 4])
def test_sigma_is_updated_as_without(members):
    same = {"stdev_lr": 0.5, "name": "same"}  # noise comes from the name
    stage, plain = make(control_members=members, **same), make("pgpe", **same)
    for one in (stage, plain):
        one.step(0)
    assert torch.equal(stage.losses(), plain.losses())
    torch.testing.assert_close(gradients(stage)["sigma"], gradients(plain)["sigma"], rtol=1e-4, atol=1e-8)
    for one in (stage, plain):
        one.step(1)
    torch.testing.assert_close(stage._status("stdev"), plain._status("stdev"), rtol=1e-5, atol=1e-9)
    assert stage._status("stdev").std() > 0


def test_members_of_its_own_do_not_depend_on_the_population():
    stage = make(control_members=4)
    stage.step(0)
    first = stage.algorithm._distribution.control.clone()
    again = make(control_members=4, popsize=20)
    again.step(0)
    torch.testing.assert_close(first, again.algorithm._distribution.control)
    assert not torch.allclose(-first, plain_gradient(stage))


def test_an_exact_control_variate_leaves_nothing(monkeypatch):
    """Of a linear loss."""
    weights = torch.linspace(-1, 1, 68)

    def linear(self, batch, params=None):
        return params @ weights

    monkeypatch.setattr(Objective, "__call__", linear)
    stage = make(popsize=4)
    assert stage.step(0)["residual"] < 1e-6
    torch.testing.assert_close(-gradients(stage)["mu"], STDEV**2 * weights, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("late", [False, True])
def test_a_gradient_that_is_not_finite_is_not_followed(monkeypatch, late):
    original = Objective.__call__

    def spoiled(self, batch, params=None):
        losses = original(self, batch, params)
        return losses + Infinite.apply(losses) if batch.step == 1 and params.requires_grad else losses

    monkeypatch.setattr(Objective, "__call__", spoiled)
    stage = build("pgpe-cv", small_net(), small_images(), late=late, **SETTINGS)
    stage.step(0)
    if late:
        stage.step(1)
    before = stage._status("center").clone()
    with pytest.raises(NumericalError, match="gradient norm of step 2"):
        stage.step(2 if late else 1)
    if late:
        assert torch.equal(stage._status("center"), before)
    assert stage._status("center").isfinite().all()


def test_gradients_without_a_control_variate_are_refused():
    mu, sigma = torch.zeros(3), torch.ones(3)
    with pytest.raises(AssertionError):
        ControlledGaussian({"mu": mu, "sigma": sigma}).compute_gradients(
            torch.randn(4, 3), torch.randn(4), objective_sense="min", ranking_method=None
        )


@pytest.mark.parametrize(
    ("bad", "message"),
    [({"control_members": 3}, "control_members: expected an even"), ({"popsize": 3}, "popsize: expected an even")],
)
def test_bad_settings_are_named(bad, message):
    with pytest.raises(ValueError, match=message):
        make(**bad)
