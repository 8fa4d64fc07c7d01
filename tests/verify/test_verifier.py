from functools import cache
from itertools import pairwise

import pytest
import torch
from torch import nn

import glsk
from glsk.verify import AttackSettings, Property, VerifySettings, verify
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


@pytest.mark.parametrize("settings", [UNITS, BLIND, VerifySettings()], ids=["units", "units, no attack", "input"])
def test_verdicts_are_those_of_exact_milp(settings):
    statuses = []
    for seed in range(40):
        net, found, exact = instance(seed)
        verdict = verify(glsk.BoundedModule(net, (3,)), found, settings=settings)
        assert verdict.status == ("sat" if exact > 0 else "unsat"), seed
        statuses.append(verdict.status)
        if verdict.status == "sat":
            point = verdict.counterexample[None]
            assert found.contains(point).all()
            assert found.violated(net.double()(point)).all()
    assert statuses.count("sat") == 20
