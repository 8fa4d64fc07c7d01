"""Tiles cover every (member, sample) once, under the limit."""

import itertools

import pytest

from glsk import geometry, tiling
from glsk.geometry import Geometry
from glsk.tiling import Footprint
from glsk.workspace import Widest, Workspace


def covered(members: int, samples: int, tiles: list[tiling.Tile]) -> bool:
    seen = [[0] * samples for _ in range(members)]
    for tile in tiles:
        for p, b in itertools.product(range(tile.p0, tile.p1), range(tile.b0, tile.b1)):
            seen[p][b] += 1
    return all(count == 1 for row in seen for count in row)


@pytest.mark.parametrize(
    ("members", "samples", "limit"), itertools.product([1, 2, 7, 256], [1, 3, 64, 513], [1, 1000, 70_000, 1 << 40])
)
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_tiles_are_a_partition(members: int, samples: int, limit: int, backend: str) -> None:
    per_pair = 1000
    tiles = list(tiling.tiles(members, samples, Footprint(0, per_pair), limit, backend))
    for tile in tiles:
        pairs = (tile.p1 - tile.p0) * (tile.b1 - tile.b0)
        assert pairs == 1 or pairs * per_pair <= limit
    assert covered(members, samples, tiles)


@pytest.mark.parametrize("scalable", [True, False])
@pytest.mark.parametrize(("members", "samples"), itertools.product([1, 7, 64], [1, 33]))
@pytest.mark.parametrize("spare", [0, 1, 20_000, 1 << 20, 1 << 40])
def test_a_gpus_tiles_leave_room_for_its_workspace(members: int, samples: int, spare: int, scalable: bool) -> None:
    workspace = Workspace(300, 200, 5000, programs=132, programs_per_pair=3, scalable=scalable)
    need = Footprint(4000, 1000, workspace)
    limit = need.least + spare
    tiles = list(tiling.tiles(members, samples, need, limit, "triton"))
    for tile in tiles:
        bounds = need.bounds(tile.p1 - tile.p0, tile.b1 - tile.b0)
        assert bounds + workspace.least((tile.p1 - tile.p0) * (tile.b1 - tile.b0)) <= limit
    assert covered(members, samples, tiles)
    if spare == 1 << 40:
        assert tiles == [tiling.Tile(0, members, 0, samples)]


def test_a_limit_too_small_for_one_pair_says_what_the_least_is() -> None:
    need = Footprint(4000, 1000, Workspace(300, 200, 5000, programs=132, programs_per_pair=3))
    assert need.least == 10_500
    with pytest.raises(ValueError, match=r"memory_limit: 10499 bytes are too few .* at least 10500 bytes"):
        list(tiling.tiles(2, 2, need, need.least - 1, "triton"))
    assert len(list(tiling.tiles(2, 2, need, need.least, "triton"))) == 4


def test_passes_that_run_one_after_the_other_share_their_workspace() -> None:
    found = Widest((Workspace(1, 9, 3, 4, 5), Workspace(2, 1, 7, 2, 1, scalable=False)))
    assert (found.per_member, found.per_pair) == (2, 9)
    assert [found.scratch(pairs) for pairs in (1, 2, 9)] == [12, 14, 14]
    assert [found.least(pairs) for pairs in (1, 2, 9)] == [7, 14, 14]
    assert Widest(()).scratch(1) == Widest(()).least(1) == Widest(()).per_pair == Widest(()).per_member == 0


def test_one_tile_where_all_fits() -> None:
    tiles = tiling.tiles(3, 5, Footprint(0, 10), 1 << 20, "reference")
    assert list(tiles) == [tiling.Tile(0, 3, 0, 5)]


def test_the_reference_counts_its_coefficients() -> None:
    layers = (Geometry(1, 28, 28, 8, 14, 14, 5, 5, 2, 2, 2, 2, 1), geometry.linear(1568, 10, relu=False))
    small, large = (tiling.bytes_per_pair(layers, 9, backend, 4) for backend in ("cpu", "reference"))
    assert small < 1568 * 100
    assert large > 1568 * 784 * 4
    assert tiling.bytes_per_pair(layers, 9, "reference", 8) == 2 * large
