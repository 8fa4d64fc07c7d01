"""Tiles cover every (member, sample) once, under the limit."""

import itertools

import pytest

from glsk import geometry, tiling
from glsk.geometry import Geometry


@pytest.mark.parametrize(
    ("members", "samples", "limit"), itertools.product([1, 2, 7, 256], [1, 3, 64, 513], [1, 1000, 70_000, 1 << 40])
)
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_tiles_are_a_partition(members: int, samples: int, limit: int, backend: str) -> None:
    per_pair = 1000
    seen = [[0] * samples for _ in range(members)]
    for tile in tiling.tiles(members, samples, per_pair, limit, backend):
        pairs = (tile.p1 - tile.p0) * (tile.b1 - tile.b0)
        assert pairs == 1 or pairs * per_pair <= limit
        for p, b in itertools.product(range(tile.p0, tile.p1), range(tile.b0, tile.b1)):
            seen[p][b] += 1
    assert all(count == 1 for row in seen for count in row)


def test_one_tile_where_all_fits() -> None:
    assert list(tiling.tiles(3, 5, 10, 1 << 20, "reference")) == [tiling.Tile(0, 3, 0, 5)]


def test_the_reference_counts_its_coefficients() -> None:
    layers = (Geometry(1, 28, 28, 8, 14, 14, 5, 5, 2, 2, 2, 2, 1), geometry.linear(1568, 10, relu=False))
    small, large = (tiling.bytes_per_pair(layers, 9, backend, 4) for backend in ("cpu", "reference"))
    assert small < 1568 * 100
    assert large > 1568 * 784 * 4
    assert tiling.bytes_per_pair(layers, 9, "reference", 8) == 2 * large
