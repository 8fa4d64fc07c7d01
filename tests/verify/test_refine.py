"""Bounds of hidden units by branch and bound hold, and gain."""

from itertools import pairwise

import pytest
import torch
from torch import nn

import glsk
from glsk.verify import VerifySettings, verify, verify_many
from glsk.verify.engine import Engine, Networks
from glsk.verify.goals import Goals
from glsk.verify.property import Box, Halfspaces, Property
from glsk.verify.refine import RefineSettings, batches, refine, room
from tests.verify import milp
from tests.verify.exact import Exact, ranges, rational

MANY = RefineSettings(leaves=64, iterations=12)


def random_net(seed: int, sizes: tuple[int, ...]) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for m, n in pairwise(sizes):
        linear = nn.Linear(m, n).double()
        with torch.no_grad():
            for parameter in linear.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / m**0.5)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1]).requires_grad_(False)


def engine_of(net: nn.Sequential, radius: float) -> tuple[Engine, Goals]:
    n = net[0].in_features
    x = torch.zeros(n, dtype=torch.float64)
    A = torch.tensor([[1.0, -1.0] + [0.0] * (net[-1].out_features - 2)], dtype=torch.float64)
    both = (Halfspaces(A, torch.full((1,), 9.0).double()), Halfspaces(-A, torch.full((1,), 9.0).double()))
    goals = Goals.of([Property((Box(x - radius, x + radius),), both)])
    return Engine(Networks(net, (n,)), goals.x_L, goals.x_U), goals


def exact_end(net: nn.Sequential, unit: int, side: float, radius: float) -> float:
    """The least of side * unit over the box, of a net whose outputs are the units."""
    n = net[0].in_features
    x = torch.zeros(n, dtype=torch.float64)
    row = torch.zeros(1, net[-1].out_features, dtype=torch.float64)
    row[0, unit] = side
    found = Property((Box(x - radius, x + radius),), (Halfspaces(row, torch.zeros(1).double()),))
    return -milp.depth(net, found)


@torch.no_grad()
def test_bounds_hold_and_come_near_the_exact_ones() -> None:
    gained, lost = [], []
    for seed in range(3):
        net = random_net(seed, (4, 8, 6, 3))
        engine, goals = engine_of(net, 0.8)
        before = engine.roots
        refine(engine, goals, MANY)
        part = before.units["2"]
        for unit in range(6):
            for side, end in ((1.0, "lower"), (-1.0, "upper")):
                old, new = (side * float(getattr(r, end)[0, part][unit]) for r in (before, engine.roots))
                exact = exact_end(net[:3], unit, side, 0.8)
                assert old <= new <= exact + 1e-6
                if new > old:
                    gained.append(exact - old)
                    lost.append(exact - new)
    assert len(gained) > 5
    assert sum(lost) < 0.3 * sum(gained)


@torch.no_grad()
@pytest.mark.parametrize("leaves", [1, 3])
def test_deeper_layers_hold_in_rational_arithmetic(leaves: int) -> None:
    """On a segment (a box of no width but in one coordinate) exact ranges are known."""
    for seed in range(6):
        net = random_net(seed, (1, 5, 5, 5, 2))
        engine, goals = engine_of(net, 0.7)
        refine(engine, goals, RefineSettings(leaves=leaves))
        exact = ranges(Exact(net), rational(engine.ends[0][0]), rational(engine.ends[1][0]))
        found = zip(engine.roots.lower[0].tolist(), engine.roots.upper[0].tolist(), strict=True)
        for (low, up), (least, most) in zip(found, (end for layer in exact[:3] for end in layer), strict=True):
            assert low <= least
            assert most <= up


@torch.no_grad()
def test_bounds_never_get_looser_and_stop_when_late() -> None:
    engine, goals = engine_of(random_net(1, (6, 12, 12, 12, 2)), 0.5)
    before = engine.roots
    refine(engine, goals, MANY, late=lambda: True)
    assert torch.equal(before.lower, engine.roots.lower)
    refine(engine, goals, MANY)
    assert bool((engine.roots.lower >= before.lower).all())
    assert bool((engine.roots.upper <= before.upper).all())
    assert bool((engine.roots.lower > before.lower + 1e-3).any())


def test_verdicts_agree_with_exact_ones_whatever_is_refined() -> None:
    decided = 0
    for seed in range(6):
        net = random_net(seed, (4, 8, 8, 2))
        x = torch.zeros(4, dtype=torch.float64)
        A = torch.tensor([[1.0, -1.0]], dtype=torch.float64)
        open_ = Property((Box(x - 0.7, x + 0.7),), (Halfspaces(A, torch.zeros(1).double()),))
        deepest = milp.depth(net, open_)
        for margin in (0.1, -0.1):
            asked = Property(open_.boxes, (Halfspaces(A, torch.full((1,), -deepest - margin).double()),))
            settings = VerifySettings(input_dimensions=0, refine=RefineSettings(leaves=2))
            found = verify(glsk.BoundedModule(net, (4,)), asked, timeout=20, settings=settings)
            assert found.status == ("unsat" if margin > 0 else "sat")
            decided += found.stage == "branch and bound"
    assert decided >= 2


def test_rows_are_refined_in_batches_that_fit() -> None:
    wanted = torch.tensor([1, 50, 3, 20, 20, 7])
    for fit in (1, 30, 60, 10_000):
        found = batches(wanted, fit, 256)
        assert torch.cat(found).sort().values.tolist() == list(range(6))
        assert all(int(room(wanted[i]).sum()) <= fit or len(i) == 1 for i in found)
    assert [len(i) for i in batches(torch.ones(600).long(), 10**9, 256)] == [256, 256, 88]


def test_a_search_ends_where_refined_bounds_leave_no_goal() -> None:
    net = random_net(3, (3, 8, 6, 2))
    x = torch.zeros(3, dtype=torch.float64)
    least = torch.full((1,), exact_end(net, 0, 1.0, 0.8) - 0.2).double()
    asked = Property((Box(x - 0.8, x + 0.8),), (Halfspaces(torch.tensor([[1.0, 0.0]]).double(), least),))
    settings = VerifySettings(input_dimensions=0, refine=RefineSettings(leaves=256, iterations=12))
    ((_, found),) = verify_many(glsk.BoundedModule(net, (3,)), [asked], timeout=20, settings=settings)
    assert (found.status, found.stage, found.subproblems) == ("unsat", "branch and bound", 0)
