import torch
from torch.nn import functional

from glsk.data import augment


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_every_result_is_a_crop_of_the_padded_image_or_its_mirror():
    x = torch.rand(16, 3, 6, 5)
    found = augment(x, generator(), padding=2)
    assert found.shape == x.shape
    padded = [functional.pad(v, (2, 2, 2, 2)) for v in (x, x.flip(3))]
    kinds = set()
    for i in range(len(x)):
        places = {
            (mirrored, row, column)
            for mirrored in (0, 1)
            for row in range(5)
            for column in range(5)
            if torch.equal(found[i], padded[mirrored][i, :, row : row + 6, column : column + 5])
        }
        assert len(places) == 1
        kinds |= places
    assert {mirrored for mirrored, _, _ in kinds} == {0, 1}
    assert len({(row, column) for _, row, column in kinds}) > 5


def test_without_padding_images_are_only_mirrored():
    x = torch.rand(32, 1, 4, 4)
    found = augment(x, generator(), padding=0)
    same = (found == x).flatten(1).all(1)
    mirrored = (found == x.flip(3)).flatten(1).all(1)
    assert bool((same ^ mirrored).all())
    assert 4 < int(same.sum()) < 28


def test_the_generator_decides():
    x = torch.rand(8, 3, 8, 8, dtype=torch.float64)
    first, again, other = augment(x, generator(1)), augment(x, generator(1)), augment(x, generator(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.dtype == torch.float64
