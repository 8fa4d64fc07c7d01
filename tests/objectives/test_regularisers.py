import pytest
import torch
from torch import nn

import glsk
from glsk import models
from glsk.objectives import MiniBatch, create
from glsk.objectives.regularisers import balance, tightness, warm_up


def bounds(*pairs):
    """One member and sample whose units have these bounds, as [1, 1, n]."""
    return [torch.tensor([[values]], dtype=torch.float64) for values in zip(*pairs, strict=True)]


def test_intervals_that_have_grown_too_wide():
    lower, upper = bounds((0.0, 1.0), (-1.0, 2.0))  # radii 0.5 and 1.5, mean 1
    assert tightness(torch.tensor(0.3), lower, upper, 0.5).item() == pytest.approx((0.5 - 0.3) / 0.5)
    assert tightness(torch.tensor(0.6), lower, upper, 0.5).item() == 0.0
    assert tightness(torch.tensor(0.0), lower, lower, 0.5).item() == 1.0


def test_active_and_inactive_units():
    """Centres 2 (active), -1 (inactive), 0 and 3 (active): mean 1."""
    lower, upper = bounds((1.0, 3.0), (-1.5, -0.5), (-1.0, 1.0), (2.0, 4.0))
    means, variances = 1 / 5, (1 + 4) / 4  # (-1) : (2 + 3); inactive 4, active 1 + 4
    expected = (0.5 - means) / 0.5 + max(0.0, 0.5 - min(variances, 1 / variances)) / 0.5
    assert balance(lower, upper, 0.5).item() == pytest.approx(expected)
    assert balance(lower, upper, 0.9).item() == pytest.approx((0.9 - 0.2) / 0.9 + (0.9 - 0.8) / 0.9)


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([(-1.0, 1.0), (-2.0, 1.0)], 0.0),  # neither kind
        ([(1.0, 2.0), (1.0, 4.0)], 2.0),  # one kind alone
        ([(-2.0, -1.0), (-4.0, -1.0)], 2.0),
    ],
)
def test_without_one_kind(pairs, expected):
    lower, upper = (t.requires_grad_() for t in bounds(*pairs))
    found = balance(lower, upper, 0.5)
    assert found.item() == expected
    found.sum().backward()
    assert lower.grad.isfinite().all()


def test_of_a_network_by_hand():
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)).double()
    net[0].weight.data = torch.tensor([[2.0, 0.0], [0.0, -4.0]], dtype=torch.float64)
    net[0].bias.data.zero_()
    x = torch.tensor([[0.5, 0.5]], dtype=torch.float64)
    found = warm_up(glsk.BoundedModule(net, 2), x, 0.1, (0.0, 1.0), None)
    # Centres 1 and -2, radii 0.2 and 0.4; the input's radius is 0.1. Mean -0.5, squares 2.25 both.
    assert found.shape == (1,)
    assert found.item() == pytest.approx((0.5 - 0.1 / 0.3) / 0.5)
    # 0.5, the ratio of the means, is just good enough
    found = warm_up(glsk.BoundedModule(net, 2), x, 0.1, (0.0, 1.0), None, tolerance=1.0)
    assert found.item() == pytest.approx((1 - 0.1 / 0.3) + (1 - 0.5))


@pytest.mark.parametrize("name", ["IBP", "CROWN", "CROWN-IBP", "SABR", "STAPS", "MTL-IBP"])
def test_its_weight_falls_as_eps_grows(name):
    bounded = glsk.BoundedModule(models.build("cnn3", (1, 8, 8), 3).double(), (1, 8, 8))
    x, y = torch.rand(4, 1, 8, 8, dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    members = torch.stack([torch.cat([p.detach().flatten() for p in bounded.net.parameters()])] * 2)
    members[1] += 0.1
    extra = warm_up(bounded, x, 0.2, (0.0, 1.0), members)
    assert extra.shape == (2,)
    plain, regularised = create(name, bounded, 3), create(name, bounded, 3, {"regularisation": 0.5})
    for ramp in (0.0, 0.4, 1.0):
        batch = MiniBatch(x, y, 0.2, ramp=ramp)
        found = regularised(batch, members) - plain(batch, members)
        torch.testing.assert_close(found, 0.5 * (1 - ramp) * extra, rtol=1e-6, atol=1e-9)
    regularised(MiniBatch(x, y, 0.2, ramp=0.4)).backward()
    assert all(p.grad.isfinite().all() for p in bounded.net.parameters())


def test_the_gradient_is_that_of_finite_differences():
    bounded = glsk.BoundedModule(models.build("cnn3", (1, 8, 8), 3, seed=3).double(), (1, 8, 8))
    x = torch.rand(4, 1, 8, 8, dtype=torch.float64)
    members = torch.cat([p.detach().flatten() for p in bounded.net.parameters()])[None].requires_grad_()
    found = warm_up(bounded, x, 0.05, (0.0, 1.0), members, tolerance=1.0)
    (gradient,) = torch.autograd.grad(found.sum(), members)
    direction = torch.randn_like(members)
    ends = [
        warm_up(bounded, x, 0.05, (0.0, 1.0), members.detach() + s * direction, tolerance=1.0) for s in (1e-6, -1e-6)
    ]
    assert float((ends[0] - ends[1]) / 2e-6) == pytest.approx(float((gradient * direction).sum()), rel=1e-4)
