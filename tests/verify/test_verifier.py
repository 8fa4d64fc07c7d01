import tempfile
from functools import cache
from itertools import pairwise

import pytest
import torch
from torch import nn

import glsk
from glsk import requiring
from glsk.verify import AttackSettings, Property, VerifySettings, margin_property, verify, verify_many
from glsk.verify.refine import RefineSettings
from glsk.verify.stack import Stack
from glsk.verify.stages import Window
from glsk.verify.subproblems import Subproblems
from tests.verify.milp import depth

NO_ATTACK = AttackSettings(steps=0, restarts=0)
UNITS = VerifySettings(input_dimensions=0)
BLIND = VerifySettings(attack=NO_ATTACK, input_dimensions=0)


def tiny(seed: int, sizes=(3, 6, 5, 3)) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for n, m in pairwise(sizes):
        layers += [nn.Linear(n, m), nn.ReLU()]
        for p in layers[-2].parameters():
            p.data = torch.randn(p.shape, generator=generator) / n**0.5
    return nn.Sequential(*layers[:-1])


@cache
def instance(seed: int):
    """A tiny network, a property that is near the border of being violated, and its exact depth."""
    generator = torch.Generator().manual_seed(1000 + seed)
    net = tiny(seed)
    centers = torch.randn(2, 3, generator=generator)
    boxes = tuple((c - 0.6, c + 0.6) for c in centers[: 1 + seed % 2])
    rows = torch.randn(2, 1 + seed % 3, 3, generator=generator)
    loose = Property(boxes, tuple((A, torch.zeros(len(A))) for A in rows[: 1 + seed % 2]))
    exact = depth(net, loose)
    moved = (0.02 if seed % 4 < 2 else -0.02) * (1 + abs(exact))
    # Every row's end moved by the same amount moves the depth by it.
    near = Property(boxes, tuple((A, torch.full((len(A),), moved - exact)) for A in rows[: 1 + seed % 2]))
    return net, near, moved


@pytest.mark.parametrize(
    ("settings", "seeds"),
    [(UNITS, range(50)), (BLIND, range(50, 100)), (VerifySettings(), range(34))],
    ids=["units", "units, no attack", "input"],
)
def test_verdicts_are_those_of_exact_milp(settings, seeds):
    statuses = []
    for seed in seeds:
        net, found, exact = instance(seed)
        verdict = verify(glsk.BoundedModule(net, (3,)), found, settings=settings)
        assert verdict.status == ("sat" if exact > 0 else "unsat"), seed
        statuses.append(verdict.status)
        if verdict.status == "sat":
            point = verdict.counterexample[None]
            assert found.contains(point).all()
            assert found.violated(net.double()(point)).all()
    assert 12 < statuses.count("sat") < 30


def hard(sizes=(20, 40, 40, 2)):
    """A property that no plain bound proves and that holds by a little: branch and bound takes its time."""
    net = tiny(3, sizes)
    points = torch.rand(20_000, sizes[0], generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        reached = (net(points) @ torch.tensor([1.0, -1.0])).max()
    ones = torch.ones(sizes[0])
    return net, Property(((-ones, ones),), ((torch.tensor([[-1.0, 1.0]]), torch.tensor([-2.8 * float(reached)])),))


def test_the_time_limit_ends_the_search():
    net, found = hard()
    ticks = iter(range(1_000_000))
    settings = VerifySettings(input_dimensions=0, clock=lambda: float(next(ticks)))
    verdict = verify(glsk.BoundedModule(net, (20,)), found, timeout=20, settings=settings)
    assert verdict.status == "timeout"
    assert verdict.stage == "branch and bound"
    assert 20 <= verdict.seconds < 40
    assert verdict.counterexample is None


def test_the_time_limit_ends_every_stage():
    """Time that is up before branch and bound leaves no stage to do."""
    net, found = hard()
    for limit in (0.5, 1.5, 2.5, 3.5, 4.5):
        ticks = iter(range(1_000_000))
        settings = VerifySettings(input_dimensions=0, clock=lambda ticks=ticks: float(next(ticks)))
        verdict = verify(glsk.BoundedModule(net, (20,)), found, timeout=limit, settings=settings)
        assert verdict.status == "timeout"


@pytest.mark.parametrize(("search", "dimensions"), [("bab", 0), ("input_split", 20)])
def test_what_is_open_waits_on_disk_where_memory_is_short(tmp_path, monkeypatch, search, dimensions):
    net, found = hard()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    limits, spilled = [], []

    class Small(Stack):
        def __init__(self, limit):
            limits.append(limit)
            super().__init__(1000)

        def _spill(self, place):
            spilled.append(place)
            super()._spill(place)

    monkeypatch.setattr(f"glsk.verify.{search}.Stack", Small)
    ticks = iter(range(1_000_000))
    unrefined = RefineSettings(leaves=0)
    settings = VerifySettings(input_dimensions=dimensions, refine=unrefined, clock=lambda: float(next(ticks)))
    verify(glsk.BoundedModule(net, (20,)), found, timeout=15, memory_limit=1 << 20, settings=settings)
    assert limits == [1 << 19]
    assert spilled
    assert not list(tmp_path.iterdir())


@torch.no_grad()
def test_properties_are_searched_in_parts_whose_planes_fit_the_memory(monkeypatch):
    net = tiny(5, (3, 24, 16, 3))
    x = torch.rand(12, 3, generator=torch.Generator().manual_seed(1))
    found = [margin_property(point, int(net(point).argmax()), 0.6, None, 3) for point in x]
    parts = []

    def watched(window, engine):
        parts.append(
            [(part, goals.property.tolist(), len(some.roots.lower)) for part, goals, some in of(window, engine)]
        )
        return of(window, engine)

    of = Window._parts
    monkeypatch.setattr(Window, "_parts", watched)
    verdicts = []
    for fit in (1000, 2):
        monkeypatch.setattr("glsk.verify.stages.fitting", lambda _, fit=fit: fit)
        many = verify_many(glsk.BoundedModule(net, (3,)), found, settings=BLIND)
        verdicts.append({i: verdict.status for i, verdict in many})
    assert verdicts[0] == verdicts[1]
    whole, few = parts
    assert len(whole) == 1
    assert len(few) > 1
    for part, owners, boxes in few:
        assert part == set(owners)
        assert boxes == len(part)
        assert len(part) == 1 or len(owners) <= 2
    assert sorted(p for part, *_ in few for p in part) == sorted(whole[0][0])


def test_many_properties_get_the_verdicts_they_get_alone():
    net = tiny(5)
    x = torch.rand(12, 3, generator=torch.Generator().manual_seed(1))
    labels = (net(x).argmax(1) + torch.arange(12) // 8) % 3
    properties = [margin_property(a, int(y), 0.4, (0.0, 1.0), 3) for a, y in zip(x, labels, strict=True)]
    bounded = glsk.BoundedModule(net, (3,))
    together = dict(verify_many(bounded, properties, settings=VerifySettings(input_dimensions=0, window=5)))
    assert {i: v.status for i, v in together.items()} == {
        i: verify(bounded, p, settings=UNITS).status for i, p in enumerate(properties)
    }
    assert len({v.status for v in together.values()}) == 2


def test_a_property_of_another_network_is_refused():
    bounded = glsk.BoundedModule(tiny(0), (3,))
    with pytest.raises(ValueError, match=r"property 0: inputs \[2\], the network takes \[3\]"):
        verify(bounded, margin_property(torch.zeros(2), 0, 0.1, None, 3))
    with pytest.raises(ValueError, match="property 0: unsafe sets of 4 outputs, the network has 3"):
        verify(bounded, margin_property(torch.zeros(3), 0, 0.1, None, 4))
    with pytest.raises(ValueError, match="timeout"):
        verify(bounded, margin_property(torch.zeros(3), 0, 0.1, None, 3), timeout=0)


def batch(goals, margins):
    n = len(goals)
    zeros = torch.zeros(n, 1, 4, dtype=torch.float16)
    return Subproblems(
        torch.tensor(goals), torch.zeros(n, 4, dtype=torch.int8), zeros, torch.zeros(n, 2).int(), torch.tensor(margins)
    )


def test_a_stack_gives_back_the_last_first_from_disk_too(tmp_path):
    stack = Stack(memory_limit=1, folder=tmp_path)
    for k in range(5):
        stack.push(batch([2 * k, 2 * k + 1], [0.0, 1.0]))
    assert len(stack) == 10
    assert list(tmp_path.iterdir())
    taken = []
    while (part := stack.pop(3)) is not None:
        taken.append(part.goal.tolist())
    assert sorted(g for part in taken for g in part) == list(range(10))
    assert set(taken[0]) == {9, 8, 7}
    stack.close()
    assert not list(tmp_path.iterdir())


def test_a_complete_search_asks_for_scipy_before_any_work(monkeypatch):
    monkeypatch.setattr(requiring, "find_spec", lambda name: None)
    bounded = glsk.BoundedModule(glsk.models.build("cnn3", (1, 8, 8), 3, seed=1), (1, 8, 8))
    asked = margin_property(torch.full((1, 8, 8), 0.5), 0, 0.01, num_classes=3)
    with pytest.raises(glsk.MissingPackageError, match=r"^complete verification: the package scipy is not installed"):
        verify(bounded, asked)
    assert verify(bounded, asked, settings=VerifySettings(complete=False)).status in ("sat", "unsat", "unknown")
