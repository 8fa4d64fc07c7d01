"""What every objective promises of members: one loss and gradient each, their own points, no silent NaN."""

import pytest
import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters

import glsk
from glsk import models, objectives
from glsk.objectives import MiniBatch, attacked, create

SHAPE, CLASSES = (1, 8, 8), 3
NAMES = [name for name in objectives.names() if name != "alpha-CROWN"]
ATTACKED = [name for name in NAMES if hasattr(objectives.settings_type(name), "shared_attack")]


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Nets this small only lose by sharing; and the cores may be shared already."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def bounded():
    net = models.build("cnn3", SHAPE, CLASSES, mean=[0.4], std=[0.3], seed=2).double()
    return glsk.BoundedModule(net, SHAPE)


@pytest.fixture
def batch():
    x = torch.rand(4, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return MiniBatch(x, torch.tensor([0, 2, 1, 1]), 0.05, step=3)


@pytest.fixture
def members(bounded):
    centre = parameters_to_vector(bounded.net.parameters()).detach()
    noise = torch.randn(5, len(centre), dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    return centre + 0.05 * noise


def gradient(loss):
    return lambda params: torch.autograd.grad(loss(params).sum(), params)[0]


@pytest.mark.parametrize("name", NAMES)
def test_members_are_what_each_is_alone(bounded, batch, members, name):
    """In value and gradient, as the module's own weights and as a population of one, however many fit in memory."""
    found = create(name, bounded, CLASSES, backend="cpu")
    together = members.clone().requires_grad_()
    losses = found(batch, together)
    losses.sum().backward()
    assert losses.shape == (5,)
    for p in range(5):
        torch.testing.assert_close(found(batch, members[p : p + 1])[0], losses[p])
        vector_to_parameters(members[p], bounded.net.parameters())
        bounded.net.zero_grad()
        own = found(batch)
        own.backward()
        assert own.shape == ()
        torch.testing.assert_close(own, losses[p])
        torch.testing.assert_close(parameters_to_vector([q.grad for q in bounded.net.parameters()]), together.grad[p])


@pytest.mark.parametrize("name", ["PGD", "STAPS"])
def test_memory_does_not_matter(bounded, batch, members, name, monkeypatch):
    found = create(name, bounded, CLASSES)(batch, members)
    monkeypatch.setattr(attacked, "MEMORY", 1)
    torch.testing.assert_close(create(name, bounded, CLASSES)(batch, members), found)


@pytest.mark.parametrize("name", NAMES)
def test_float32_is_float64_rounded(bounded, batch, members, name):
    found = create(name, bounded, CLASSES, {} if name not in ATTACKED else {"shared_attack": True})
    expected = found(batch, members)
    bounded.net.float()
    rounded = MiniBatch(batch.x.float(), batch.y, batch.eps, batch.step)
    values = found(rounded, members.float())
    assert values.dtype == torch.float32
    torch.testing.assert_close(values.double(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_reference_and_cpu_backend_agree(bounded, batch, members, name):
    both = []
    for backend in ("reference", "cpu"):
        params = members.clone().requires_grad_()
        losses = create(name, bounded, CLASSES, backend=backend)(batch, params)
        both.append((losses.detach(), torch.autograd.grad(losses.sum(), params)[0]))
    torch.testing.assert_close(both[0], both[1], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", ATTACKED)
def test_members_may_share_the_points_of_their_centre(bounded, batch, members, name):
    mean = members.mean(0)
    found = create(name, bounded, CLASSES, {"shared_attack": True})
    centred = MiniBatch(batch.x, batch.y, batch.eps, batch.step, centre=mean)
    losses = found(centred, members)
    torch.testing.assert_close(found(batch, members), losses)
    # A part of the population sees the same points as the whole, given the centre, and other ones without.
    torch.testing.assert_close(found(centred, members[1:3]), losses[1:3])
    elsewhere = found(MiniBatch(batch.x, batch.y, batch.eps, batch.step, centre=mean + 0.5 * members[0]), members)
    assert (elsewhere - losses).abs().max() > 1e-3
    # The centre as a member has its own points then.
    alone = create(name, bounded, CLASSES)(batch, mean[None])
    torch.testing.assert_close(found(centred, mean[None]), alone)


@pytest.mark.parametrize("name", [*ATTACKED, "TAPS"])
def test_seed_and_step_decide(bounded, batch, members, name):
    few = {key: 1 for key in ("attack_steps", "latent_steps") if hasattr(objectives.settings_type(name), key)}

    def run(seed, step):
        return create(name, bounded, CLASSES, few, seed=seed)(MiniBatch(batch.x, batch.y, 0.2, step), members)

    first = run(0, 3)
    assert torch.equal(run(0, 3), first)
    assert not torch.equal(run(0, 4), first)
    assert not torch.equal(run(1, 3), first)


@pytest.mark.parametrize("name", [*ATTACKED, "TAPS"])
def test_more_restarts_are_never_better_for_the_defender(bounded, batch, members, name):
    kind = objectives.settings_type(name)
    steps = {key: 1 for key in ("attack_steps", "latent_steps") if hasattr(kind, key)}
    more = {key: 4 for key in ("attack_restarts", "latent_restarts") if hasattr(kind, key)}
    if name in ("SABR", "STAPS"):
        steps["tau"] = 1.0  # else a worse point may have a better box
    one, many = (create(name, bounded, CLASSES, {**steps, **some})(batch, members) for some in ({}, more))
    assert bool((many >= one - 1e-9).all())
    assert bool((many > one).any()) or name == "SABR"


@pytest.mark.parametrize("name", objectives.names())
def test_a_member_that_is_not_finite(bounded, batch, members, name):
    """An error where values are looked at; without, the loss NaN of that member alone."""
    members[1, 0], members[3, -1] = float("nan"), float("inf")
    with pytest.raises(ValueError, match="holds NaN or infinity"):
        create(name, bounded, CLASSES)(batch, members)
    losses = create(name, bounded, CLASSES, checked=False)(batch, members)
    assert losses.isnan().tolist() == [False, True, False, True, False]


@pytest.mark.parametrize("name", objectives.names())
def test_an_overflow(bounded, batch, members, name):
    bounded.net.float()
    members = members.float()
    members[2] *= 1e20
    batch = MiniBatch(batch.x.float(), batch.y, 0.05)
    with pytest.raises(glsk.NumericalError):
        create(name, bounded, CLASSES)(batch, members)
    losses = create(name, bounded, CLASSES, checked=False)(batch, members)
    assert losses.isfinite().tolist() == [True, True, False, True, True]


@pytest.mark.parametrize("name", objectives.names())
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x": torch.full((4, *SHAPE), float("nan"), dtype=torch.float64)}, "NaN"),
        ({"x": torch.full((4, 1, 8, 7), 0.5, dtype=torch.float64)}, r"expected \[B, 1, 8, 8\]"),
        ({"y": torch.tensor([0, 1, 2, 3])}, "labels must lie"),
        ({"eps": -0.1}, "eps"),
    ],
)
def test_bad_mini_batches(bounded, batch, members, name, changed, message):
    given = {"x": batch.x, "y": batch.y, "eps": batch.eps, **changed}
    with pytest.raises(ValueError, match=message):
        create(name, bounded, CLASSES)(MiniBatch(**given), members)


@pytest.mark.parametrize("name", ["PGD", "SABR", "STAPS"])
def test_time_is_added_up(bounded, batch, name):
    found = create(name, bounded, CLASSES)
    found(batch)
    once = found.seconds
    found(batch)
    assert 0 < once < found.seconds
    assert len(found.spans) == 2
    found.restart()
    assert found.seconds == 0
