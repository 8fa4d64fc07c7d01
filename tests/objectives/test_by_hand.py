"""Every objective's formula, on a case computed by hand."""

import math

import pytest
import torch

from glsk.objectives.taps import _Connector
from tests.objectives.small import ACTIVE, APART, IDENTITY, SECOND, loss, network


def ce(margin):
    return math.log(1 + math.exp(-margin))


@pytest.fixture
def active():
    """Margin h0 - h1 with h = (x0 - x1 + 0.3, x1): least, -0.5, at the corner (0.4, 0.6)."""
    return network(ACTIVE, IDENTITY)


@pytest.fixture
def apart():
    """Margin -|x0 - x1|: -0.2 at the worst, of which interval bounds make -0.4."""
    return network(IDENTITY, APART, SECOND)


def test_adversarial(active, apart):
    assert loss("PGD", active).item() == pytest.approx(ce(0.1 - 0.6), rel=1e-12)
    assert loss("PGD", apart).item() == pytest.approx(ce(-0.2), rel=1e-12)


@pytest.mark.parametrize("tau", [0.25, 0.5, 1.0])
def test_sabr(active, tau):
    """The box of radius 0.1 tau nearest to the corner (0.4, 0.6) within the ball."""
    r = 0.1 * tau
    x0, x1 = (0.4, 0.4 + 2 * r), (0.6 - 2 * r, 0.6)
    lower = (x0[0] - x1[1] + 0.3) - x1[1]
    assert loss("SABR", active, tau=tau).item() == pytest.approx(ce(lower), rel=1e-12)


def test_sabr_with_the_whole_box_is_ibp(apart):
    assert loss("SABR", apart, tau=1.0).item() == pytest.approx(ce(-0.4), rel=1e-12)
    assert loss("IBP", apart).item() == pytest.approx(ce(-0.4), rel=1e-12)


def test_sabr_of_a_box_that_the_data_range_cuts(active):
    """Around (0.5, 0.5) with eps 0.6 the ball is the range, and its widths are the range's, not 1.2."""
    found = loss("SABR", active, 0.6, tau=0.5).item()
    h0 = (max(0.0, 0.0 - 1.0 + 0.3), 0.5 - 0.5 + 0.3)
    assert found == pytest.approx(ce(h0[0] - 1.0), rel=1e-12)  # x1 in [0.5, 1], wherever x0 went


def test_taps(apart):
    """The search finds the margin -0.2 where bounds leave -0.4; the loss is the product."""
    assert loss("TAPS", apart, classifier_layers=2).item() == pytest.approx(ce(-0.2) * ce(-0.4), rel=1e-12)
    # Of a last layer alone, which is linear, the search finds what bounds leave.
    assert loss("TAPS", apart, classifier_layers=1).item() == pytest.approx(ce(-0.4) ** 2, rel=1e-12)


def test_taps_is_ibp_until_eps_has_been_reached(apart):
    assert loss("TAPS", apart, ramp=0.5).item() == pytest.approx(ce(-0.4), rel=1e-12)
    found = loss("TAPS", apart, ramp=0.5, bounds_while_annealing=False).item()
    assert found == pytest.approx(ce(-0.2) * ce(-0.4), rel=1e-12)


def test_staps(apart):
    """A box of radius 0.025 in a corner of the ball: |x0 - x1| from 0.15 to 0.2 there, intervals know no better."""
    margin = -0.2
    assert loss("STAPS", apart, tau=0.25).item() == pytest.approx(ce(margin) ** 2, rel=1e-12)


def test_staps_with_the_whole_box_is_taps(apart):
    assert loss("STAPS", apart, tau=1.0).item() == pytest.approx(ce(-0.2) * ce(-0.4), rel=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_between_adversarial_and_ibp(apart, alpha):
    adversarial, ibp = ce(-0.2), ce(-0.4)
    expected = {
        "MTL-IBP": (1 - alpha) * adversarial + alpha * ibp,
        "CC-IBP": ce(-0.2 * (1 - alpha) - 0.4 * alpha),
        "Exp-IBP": adversarial ** (1 - alpha) * ibp**alpha,
    }
    for name, value in expected.items():
        assert loss(name, apart, alpha=alpha).item() == pytest.approx(value, rel=1e-12), name


def test_attack_radius(apart):
    """Twice the ball is attacked, |x0 - x1| up to 0.4; intervals keep to the ball."""
    found = loss("MTL-IBP", apart, alpha=0.25, attack_radius=2.0).item()
    assert found == pytest.approx(0.75 * ce(-0.4) + 0.25 * ce(-0.4), rel=1e-12)


def test_crown_ibp_follows_eps_from_one_weight_to_the_other(apart):
    """CROWN-IBP of -ReLU(d) - ReLU(-d), d in [-0.2, 0.2]: upper lines d/2 + 0.1 and 0.1 - d/2, so -0.2."""
    assert loss("CROWN-IBP", apart).item() == pytest.approx(ce(-0.2), rel=1e-12)
    for ramp in (0.0, 0.25, 1.0):
        beta = 1.0 - 0.8 * ramp
        found = loss("CROWN-IBP", apart, ramp=ramp, beta_start=1.0, beta_end=0.2).item()
        assert found == pytest.approx(ce(-0.2 * beta - 0.4 * (1 - beta)), rel=1e-12)
    assert loss("CROWN-IBP", apart, beta_end=0.0).item() == pytest.approx(ce(-0.4), rel=1e-12)


def test_the_connector_passes_gradients_on_near_the_ends():
    lower = torch.tensor([[[0.0, 0.0, 0.0, 0.0, 0.0, 2.0]]], dtype=torch.float64, requires_grad=True)
    upper = torch.tensor([[[1.0, 1.0, 1.0, 1.0, 1.0, 2.0]]], dtype=torch.float64, requires_grad=True)
    points = torch.tensor([0.0, 0.125, 0.5, 0.9, 1.0, 2.0], dtype=torch.float64)
    points = torch.stack([points, points[[4, 3, 2, 1, 0, 5]]])[None, None]
    found = _Connector.apply(lower, upper, points, 0.5)
    assert torch.equal(found, points)
    weights = torch.tensor([[1.0, 2, 3, 4, 5, 6], [10.0, 20, 30, 40, 50, 60]], dtype=torch.float64)
    (weights * found).sum().backward()
    down = torch.tensor([1.0, 0.75, 0, 0, 0, 0.5], dtype=torch.float64)
    up = torch.tensor([0, 0, 0, 0.8, 1.0, 0.5], dtype=torch.float64)
    order = [4, 3, 2, 1, 0, 5]
    torch.testing.assert_close(lower.grad[0, 0], weights[0] * down + weights[1] * down[order])
    torch.testing.assert_close(upper.grad[0, 0], weights[0] * up + weights[1] * up[order])


def test_the_gradient_scale_leaves_the_value_alone(apart):
    gradients = []
    for scale in (1.0, 5.0):
        apart.net.zero_grad()
        value = loss("TAPS", apart, gradient_scale=scale)
        value.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in apart.net.parameters()]))
        assert value.item() == pytest.approx(ce(-0.2) * ce(-0.4), rel=1e-12)
    apart.net.zero_grad()
    loss("IBP", apart).backward()
    bounded = torch.cat([p.grad.flatten() for p in apart.net.parameters()])
    searched = (gradients[0] - ce(-0.2) * bounded) / ce(-0.4)
    torch.testing.assert_close(gradients[1], 5 * ce(-0.4) * searched + ce(-0.2) * bounded)
