"""Planes above the first layer's units hold in rational arithmetic, and gain."""

from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from torch import nn

import glsk
from glsk.bounds.subproblems import Roots
from glsk.ops.branch_planes import taps
from glsk.verify.bounding import Bounder, BranchSettings
from glsk.verify.engine import Engine, Networks
from glsk.verify.goals import Goals
from glsk.verify.plane_search import constants, first_layer
from glsk.verify.planes import PlaneSettings
from glsk.verify.property import Box, Halfspaces, Property
from glsk.verify.refine import RefineSettings, refine
from tests.support import CPU_BACKENDS
from tests.verify.exact import Exact, kinks, rational
from tests.verify.test_refine import exact_end, random_net
from tests.verify.test_sound_layers import scrambled

FIRST = {
    "linear": ((3,), 4, lambda: [nn.Linear(3, 4)]),
    "padded": ((2, 3, 3), 12, lambda: [nn.Conv2d(2, 3, 2, stride=2, padding=1)]),
    "folded": ((1, 2, 3), 24, lambda: [glsk.Normalize([0.1], [0.3]), nn.Conv2d(1, 2, 2, padding=1), nn.BatchNorm2d(2)]),
}
"""Input shape, units, layers."""


@pytest.mark.parametrize("kind", FIRST)
@pytest.mark.parametrize("seed", range(4))
def test_planes_are_above_the_unit_and_above_zero(kind: str, seed: int) -> None:
    shape, units, layers = FIRST[kind]
    generator = torch.Generator().manual_seed(seed)
    net = scrambled(nn.Sequential(*layers(), nn.ReLU(), nn.Flatten(), nn.Linear(units, 2)), seed)
    low = torch.randn(1, *shape, generator=generator).double()
    high = low + torch.rand(low.shape, generator=generator).double() * 2.0 ** (-3 * seed)
    engine = Engine(Networks(net, shape), low, high)
    geometry = engine.roots.chain.geometry[0]
    first = first_layer(engine.roots, torch.arange(geometry.out_features)[None])
    weights = torch.rand(first.own.shape, generator=generator).double() * first.own
    held = constants(first, weights, engine.moved[:, : geometry.out_features])
    exact, inputs = Exact(net, shape), taps(geometry)
    k = len(exact.leaks) - len(engine.roots.chain.geometry)  # a layer that normalises comes first
    ends = [rational(low.flatten()), rational(high.flatten())]
    ends = [exact.activate(j, exact.layer(j, end)) for end in ends for j in range(k)] if k else ends
    for unit in range(geometry.out_features):
        plane = [Fraction(0)] * geometry.in_features
        for at, weight in zip(inputs[unit].tolist(), weights[0, unit].tolist(), strict=True):
            if at < len(plane):
                plane[at] += Fraction(weight)
            else:
                assert weight == 0
        constant = Fraction(float(held[0, unit]))
        own = exact.weights[k][unit], exact.biases[k][unit]
        for other in (([Fraction(0)] * len(plane), Fraction(0)), own):
            rest = [a - b for a, b in zip(plane, other[0], strict=True)]
            least = sum(min(a * x, a * y) for a, x, y in zip(rest, *ends, strict=True))
            assert least + constant - other[1] >= 0


def goals_of(net: nn.Sequential, low: torch.Tensor, high: torch.Tensor, C: torch.Tensor) -> Goals:
    unsafe = tuple(Halfspaces(row[None], torch.zeros(1).double()) for row in C)
    return Goals.of([Property((Box(low, high),), unsafe)])


@torch.no_grad()
@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_bounds_with_planes_hold_exactly_under_splits(backend: str) -> None:
    """On a segment, against the least value at the inputs that meet the splits."""
    C = torch.tensor([[1.0, -1.0], [0.3, 1.0]], dtype=torch.float64)
    met = 0
    for seed in range(8):
        net = random_net(seed, (3, 6, 5, 2))
        generator = torch.Generator().manual_seed(seed)
        low = torch.randn(3, generator=generator).double()
        high = low + torch.tensor([1.0, 0.0, 0.0]).double()
        goals = goals_of(net, low, high, C)
        engine = Engine(Networks(net, (3,)), goals.x_L, goals.x_U, backend=backend)
        bounder = Bounder(engine, goals, BranchSettings()).raised(PlaneSettings())
        if bounder.engine is engine or not bounder.engine.columns.shape[1]:
            continue
        own = bounder.engine
        width = own.columns.shape[1]
        splits = torch.randint(-1, 2, (2, width), generator=generator) * (own.columns < engine.roots.lower.shape[1])
        splits = splits.to(torch.int8)
        duals = own.screen(bounder.goals.A, bounder.goals.box, splits=splits, iterations=8).duals.double()
        how = {"index": bounder.goals.box, "splits": splits, "start": duals, "iterations": 1}
        lower = own.exact.bound(bounder.goals.A, **how).lower - own.slack(
            bounder.goals.A, bounder.goals.box, splits, duals
        )
        signs = [{int(u): int(s) for u, s in zip(own.columns[g], splits[g], strict=True) if s} for g in range(2)]
        for values in kinks(Exact(net), rational(low), rational(high)):
            hidden = [y for layer in values[:-1] for y in layer]
            for g in range(2):
                if all(s * hidden[u] >= 0 for u, s in signs[g].items()):
                    met += 1
                    truth = sum(a * y for a, y in zip(rational(C[g]), values[-1], strict=True))
                    assert Fraction(float(lower[g, 0])) <= truth
    assert met > 20


@torch.no_grad()
def test_planes_gain_at_the_root_and_in_subproblems() -> None:
    gained = again = 0.0
    for seed in range(4):
        net = random_net(seed, (6, 16, 8, 2))
        x = torch.zeros(6).double()
        goals = goals_of(net, x - 0.5, x + 0.5, torch.tensor([[1.0, -1.0]]).double())
        goals = replace(goals, b=goals.b + 9)  # out of reach: it stays open
        engine = Engine(Networks(net, (6,)), goals.x_L, goals.x_U)
        plain = Bounder(engine, goals, BranchSettings())
        planes = plain.raised(PlaneSettings())
        before, after = plain.root(50), planes.root(50)
        gained += float(after.margin - before.margin)
        children = planes.children(after, after.units[:, 0].long())
        raised = planes.raised(PlaneSettings(), children).root(12, children.splits)
        again += float((raised.margin - children.margin).sum())
    assert gained > 0.1
    assert again > 0


@torch.no_grad()
def test_hidden_bounds_hold_and_gain_by_planes() -> None:
    gained = 0.0
    for seed in range(3):
        net = random_net(seed, (4, 8, 6, 3))
        low, high = torch.full((2, 4), 0.8).double() * torch.tensor([[-1.0], [1.0]])
        found = []
        for planes in (0, 30):
            goals = goals_of(net, low, high, torch.tensor([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0]]).double())
            engine = Engine(Networks(net, (4,)), goals.x_L, goals.x_U)
            refine(engine, replace(goals, b=goals.b + 9), RefineSettings(leaves=1), planes=planes)
            found.append(engine.roots)
        part = found[0].units["2"]
        for unit in range(6):
            for side, end in ((1.0, "lower"), (-1.0, "upper")):
                old, new = (side * float(getattr(r, end)[0, part][unit]) for r in found)
                assert new <= exact_end(net[:3], unit, side, 0.8) + 1e-6
                gained += new - old
    assert gained > 0.1


def test_a_plane_of_a_units_own_weights_is_the_unit() -> None:
    net = glsk.models.build("cnn3", (1, 8, 8), 3, seed=1).double()
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    roots = Roots.of(glsk.BoundedModule(net, (1, 8, 8)), x, x)
    first = first_layer(roots, torch.arange(roots.chain.geometry[0].out_features).expand(2, -1))
    values = (first.own * first.read(x.flatten(1))).sum(-1) + first.bias
    torch.testing.assert_close(values, net[0](x).flatten(1))
