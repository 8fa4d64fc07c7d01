import pytest
import torch
from torch.nn import functional
from torch.nn.utils import parameters_to_vector

import glsk
from glsk.models import build
from glsk.objectives import MiniBatch, create

SHAPE = (1, 10, 10)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Nets this small only lose by sharing; and the cores may be shared already."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def net():
    return build("cnn3", SHAPE, 4, seed=1)


@pytest.fixture
def batch():
    return MiniBatch(torch.rand(5, *SHAPE), torch.tensor([0, 3, 2, 1, 1]), 0.05)


@pytest.fixture
def members(net):
    centre = parameters_to_vector(net.parameters()).detach()
    return centre + 0.01 * torch.randn(6, len(centre))


def robust_loss(net, method="CROWN"):
    return create(method, glsk.BoundedModule(net, SHAPE), 4, backend="reference")


@pytest.mark.parametrize("method", ["IBP", "HBox", "CROWN-IBP", "CROWN"])
def test_it_is_the_robust_cross_entropy_of_the_margins(net, batch, members, method):
    found = robust_loss(net, method)(batch, members)
    lower, _ = glsk.BoundedModule(net, SHAPE).compute_bounds(
        batch.x, eps=0.05, clip=(0.0, 1.0), C=glsk.margins(batch.y, 4), method=method, params=members
    )
    expected = (1 + (-lower).exp().sum(2)).log().mean(1)
    assert found.shape == (6,)
    torch.testing.assert_close(found, expected)


def test_without_perturbation_it_is_the_cross_entropy(net, batch):
    with torch.no_grad():
        found = robust_loss(net)(MiniBatch(batch.x, batch.y, 0.0))
        torch.testing.assert_close(found, functional.cross_entropy(net(batch.x), batch.y))


def test_own_weights_are_differentiated_through(net, batch):
    robust_loss(net, "CROWN")(batch).backward()
    gradients = [p.grad for p in net.parameters()]
    assert all(g is not None and g.isfinite().all() and g.abs().max() > 0 for g in gradients)


def test_gradient_agrees_with_finite_differences(net, batch):
    net.double()
    loss = robust_loss(net, "CROWN")
    batch = MiniBatch(batch.x.double(), batch.y, 0.05)
    loss(batch).backward()
    flat = parameters_to_vector(net.parameters()).detach()
    gradient = parameters_to_vector([p.grad for p in net.parameters()])
    direction = torch.randn(len(flat), dtype=torch.float64)
    step = 1e-7 * direction
    plus, minus = loss(batch, torch.stack([flat + step, flat - step]))
    assert float((plus - minus) / 2e-7) == pytest.approx(float(gradient @ direction), rel=1e-3)


def test_time_in_the_bounds_is_added_up(net, batch, members):
    loss = robust_loss(net)
    loss(batch, members)
    once = loss.seconds
    loss(batch, members)
    assert 0 < once < loss.seconds


def test_without_checks_finite_members_have_the_same_losses(net, batch, members):
    unchecked = create("CROWN", glsk.BoundedModule(net, SHAPE), 4, backend="reference", checked=False)
    assert torch.equal(unchecked(batch, members), robust_loss(net)(batch, members))


def test_without_checks_a_member_that_is_not_finite_has_the_loss_nan(net, batch, members, monkeypatch):
    """Even where an op drops the NaN, as a minimum or a maximum may."""
    unchecked = create("CROWN", glsk.BoundedModule(net, SHAPE), 4, backend="reference", checked=False)
    members[1, 0], members[2, -1] = float("inf"), float("nan")
    lower = torch.ones(6, 5, 3)
    lower[4, 2, 1] = float("nan")
    monkeypatch.setattr(glsk.BoundedModule, "compute_bounds", lambda *args, **settings: (lower, None))
    monkeypatch.setattr(glsk, "robust_cross_entropy", lambda lower: lower.nan_to_num().mean((1, 2)))
    assert unchecked(batch, members).isnan().tolist() == [False, True, True, False, True, False]
