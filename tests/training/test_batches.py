import pytest
import torch

from glsk.seeds import derive_seed, stream
from glsk.training.batches import Batches

X = torch.arange(10.0).reshape(10, 1, 1, 1).expand(10, 1, 4, 4)
Y = torch.arange(10)


def test_an_epoch_holds_every_image_at_most_once():
    batches = Batches(X, Y, 3, seed=0)
    assert batches.steps_per_epoch == 3
    seen = torch.cat([batches.batch(step)[1] for step in range(3)])
    assert len(seen.unique()) == 9


def test_images_and_labels_stay_together():
    x, y = Batches(X, Y, 4, seed=1).batch(5)
    assert x.shape == (4, 1, 4, 4)
    assert torch.equal(x[:, 0, 0, 0].long(), y)


def test_a_batch_depends_on_seed_and_step_alone():
    batches = Batches(X, Y, 3, seed=0)
    forward = [batches.batch(step)[1] for step in range(9)]
    backward = [Batches(X, Y, 3, seed=0).batch(step)[1] for step in reversed(range(9))]
    assert all(torch.equal(a, b) for a, b in zip(forward, reversed(backward), strict=True))
    assert not torch.equal(torch.cat(forward[:3]), torch.cat(forward[3:6]))
    other = Batches(X, Y, 3, seed=1)
    assert not torch.equal(torch.cat(forward), torch.cat([other.batch(step)[1] for step in range(9)]))


def test_augmentation_is_reproducible_and_differs_between_epochs():
    x = torch.rand(4, 3, 8, 8)
    batches = Batches(x, torch.arange(4), 4, seed=0, augmented=True)
    first, y = batches.batch(0)
    again, _ = Batches(x, torch.arange(4), 4, seed=0, augmented=True).batch(0)
    assert torch.equal(first, again)
    assert not torch.equal(first, x[y])
    later, y_later = batches.batch(1)
    assert not torch.equal(later[y_later.argsort()], first[y.argsort()])


def test_batch_size_is_limited_by_the_set():
    assert Batches(X, Y, 512, seed=0).batch_size == 10


def test_an_empty_set_is_refused():
    with pytest.raises(ValueError, match="no training images"):
        Batches(X[:0], Y[:0], 4, seed=0)


def test_streams_of_different_labels_differ():
    seeds = {derive_seed(seed, label, step) for seed in range(3) for label in ("a", "b") for step in range(50)}
    assert len(seeds) == 300
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(1, 23) != derive_seed(12, 3)


def test_streams_do_not_change_between_versions():
    assert derive_seed(0, "order", 0) == 822864071684415769
    assert torch.equal(torch.rand(3, generator=stream(5, "x")), torch.rand(3, generator=stream(5, "x")))
