import pytest
import torch
from torch import nn

from glsk.attacks.pgd import LOSSES, cross_entropy, negative_margin, pgd
from glsk.models import build


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Nets this small only lose by sharing; and the cores may be shared already."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def problem():
    net = build("cnn3", (1, 12, 12), seed=3)
    x = torch.rand(24, 1, 12, 12, generator=generator(7))
    with torch.no_grad():
        return net, x, net(x).argmax(1)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("restarts", [1, 3])
def test_stays_in_ball_and_range_and_never_lowers_the_loss(problem, loss, restarts):
    net, x, y = problem
    found = pgd(net, x, y, eps=0.1, steps=5, restarts=restarts, loss=loss, generator=generator())
    assert (found - x).abs().max() <= 0.1 + 1e-6
    assert found.min() >= 0
    assert found.max() <= 1
    with torch.no_grad():
        before, after = LOSSES[loss](net(x), y), LOSSES[loss](net(found), y)
    assert bool((after >= before).all())
    assert bool((after > before + 1e-3).float().mean() > 0.9)


def test_reaches_the_optimum_of_a_linear_net():
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    x = 0.3 + 0.4 * torch.rand(8, 1, 4, 4)
    y = torch.zeros(8, dtype=torch.int64)
    found = pgd(net, x, y, eps=0.1, steps=10, loss="margin", generator=generator())
    weight = (net[1].weight[1] - net[1].weight[0]).detach()
    torch.testing.assert_close(found, x + 0.1 * weight.sign().reshape(1, 4, 4))


def test_more_restarts_are_never_worse(problem):
    net, x, y = problem
    with torch.no_grad():
        one, many = (
            negative_margin(net(pgd(net, x, y, eps=0.1, steps=3, restarts=n, loss="margin", generator=generator())), y)
            for n in (1, 4)
        )
    assert bool((many >= one).all())
    assert bool((many > one).any())


def test_margin_loss_is_positive_exactly_for_misclassified_samples():
    logits, y = torch.randn(200, 5), torch.randint(0, 5, (200,))
    assert torch.equal(negative_margin(logits, y) > 0, logits.argmax(1) != y)
    logits = torch.tensor([[1.0, 4.0, 2.5]])
    assert negative_margin(logits, torch.tensor([1])).tolist() == [-1.5]
    assert negative_margin(logits, torch.tensor([0])).tolist() == [3.0]
    assert cross_entropy(logits, torch.tensor([1])).shape == (1,)


def test_parameters_get_no_gradient(problem):
    net, x, y = problem
    pgd(net, x, y, eps=0.1, steps=2, generator=generator())
    assert all(p.grad is None for p in net.parameters())


def test_works_under_no_grad_and_in_float64(problem):
    net, x, y = problem
    with torch.no_grad():
        found = pgd(net.double(), x.double(), y, eps=0.1, steps=2, generator=generator())
    net.float()
    assert found.dtype == torch.float64
    assert not found.requires_grad


def test_radius_zero_changes_nothing(problem):
    net, x, y = problem
    assert torch.equal(pgd(net, x, y, eps=0.0, steps=2, generator=generator()), x)


def test_the_generator_decides(problem):
    net, x, y = problem
    runs = [pgd(net, x, y, eps=0.1, steps=1, generator=generator(seed)) for seed in (0, 0, 1)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


@pytest.mark.parametrize("bad", [{"loss": "dlr"}, {"eps": -0.1}, {"restarts": 0}, {"steps": -1}])
def test_bad_arguments(problem, bad):
    net, x, y = problem
    with pytest.raises(ValueError, match=r"loss|attack"):
        pgd(net, x, y, **{"eps": 0.1, "generator": generator(), **bad})
