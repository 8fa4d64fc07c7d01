"""Each op on CNN3's layers, every backend of this machine side by side: ``pytest bench/test_ops.py``."""

from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor

import glsk
from bench.workloads import workload
from glsk import ops
from glsk.geometry import Geometry, encode

MEMBERS, SAMPLES = 8, 64
BACKENDS = [name for name in ("reference", "cpu") if glsk.backends.why_missing(name) is None]


@cache
def arguments(op: str) -> tuple[object, ...]:
    case = workload("cnn3", MEMBERS, SAMPLES)
    bounded = glsk.BoundedModule(case.net, (1, 28, 28))
    hidden = bounded.intermediate_bounds(x_L=case.x_L, x_U=case.x_U, params=case.params)
    population = glsk.population.assemble(bounded.chain, case.params)
    layers, weights, biases = bounded.chain.geometry, list(population.weights), list(population.biases)
    lowers, uppers = ([bounds[end] for bounds in hidden.values()] for end in (0, 1))
    box: tuple[Tensor, Tensor] = case.x_L.flatten(1)[None], case.x_U.flatten(1)[None]
    none = box[0].new_empty(0)
    first = weights[:2], biases[:2], lowers[:1], uppers[:1]
    rest = [none], None, None, None, encode(layers[:2]), [0.0] * 2
    everything = *box, weights, biases, lowers, uppers, [none] * 2
    radius, nothing = (box[1] - box[0]) / 2, [torch.zeros_like(bias) for bias in biases[:2]]
    return {
        "ibp_affine": (lowers[0], uppers[0], weights[1], biases[1], list(layers[1]), True, 0.0),
        "crown_pass-layer": (*box, *first, *rest, "adaptive", True),
        "crown_pass-margins": (*everything, case.C, None, None, encode(layers), [0.0] * 3, "adaptive", False),
        "crown_pass-mask": (-radius, radius, weights[:2], nothing, lowers[:1], uppers[:1], *rest, "mask", False),
        "optimised_pass": (*everything, case.C, None, None, encode(layers), [0.0] * 3, "adaptive", False, 20, 0.1),
        "branch_pass": _branch_pass(box, weights, biases, lowers, uppers, case.C, encode(layers)),
        "plane_search": _plane_search(box, weights, biases, lowers, uppers, case.C, layers),
        "chain_bounds": (*box, weights, biases, case.C, encode(layers), [0.0] * 3, "CROWN", True, False, False),
        "sign_ascent": (
            box[0].unsqueeze(2),
            *box,
            weights,
            biases,
            None,
            torch.arange(SAMPLES) % 10,
            encode(layers),
            [0.0] * 3,
            0.3,
            8,
        ),
        "hbox_relu": (lowers[0], uppers[0], lowers[0], uppers[0], 0.0),
        "relu_relaxation": (lowers[0], uppers[0]),
        "robust_cross_entropy": (case.C[..., 0].expand(MEMBERS, -1, -1).contiguous(),),
    }[op]


def _branch_pass(
    box: tuple[Tensor, Tensor],
    weights: list[Tensor],
    biases: list[Tensor],
    lowers: list[Tensor],
    uppers: list[Tensor],
    C: Tensor,
    geometry: list[int],
) -> tuple[object, ...]:
    """As many subproblems of the first member as there are pairs, one row and 8 splits each, 20 iterations."""
    one = [w[:1] for w in weights], [b[:1] for b in biases]
    lower, upper = (torch.cat([end[0] for end in ends], dim=1) for ends in (lowers, uppers))
    count, generator = MEMBERS * SAMPLES, torch.Generator().manual_seed(0)
    index = torch.arange(count) * SAMPLES // count
    unstable = ((lower < 0) & (upper > 0)).float()[index]
    splits = torch.zeros(count, lower.shape[1], dtype=torch.int8)
    splits.scatter_(1, unstable.multinomial(8, generator=generator), 1)
    splits *= (torch.randint(0, 2, splits.shape, generator=generator) * 2 - 1).to(torch.int8)
    rows = C[index, :1].contiguous()
    return (
        *(end[0] for end in box), *one, lower, upper, index, splits, rows, *[None] * 6, geometry, [0.0] * len(weights),
        20, 0.1, 0.1, 0.98, True, False, False,
    )  # fmt: skip


def _plane_search(
    box: tuple[Tensor, Tensor],
    weights: list[Tensor],
    biases: list[Tensor],
    lowers: list[Tensor],
    uppers: list[Tensor],
    C: Tensor,
    layers: tuple[Geometry, ...],
) -> tuple[object, ...]:
    """A row of each sample of the first member, 15 iterations."""
    lower, upper = (torch.cat([end[0] for end in ends], dim=1) for ends in (lowers, uppers))
    n, taps = layers[0].out_features, weights[0][0, 0].numel()
    free = (lower[:, :n] < 0) & (upper[:, :n] > 0)
    units = torch.where(free, torch.arange(n), n).sort(dim=1).values[:, : int(free.sum(dim=1).max())].contiguous()
    chord = torch.nn.functional.pad(upper[:, :n] / (upper[:, :n] - lower[:, :n]), (0, 1)).gather(1, units)
    return (
        *(end[0] for end in box), [w[:1] for w in weights], [b[:1] for b in biases], lower, upper, None,
        C[:, 0].contiguous(), torch.zeros_like(lower), units, chord[..., None].repeat(1, 1, taps), encode(layers),
        [0.0] * len(weights), 15,
    )  # fmt: skip


NAMES = (
    "branch_pass", "chain_bounds", "ibp_affine", "crown_pass-layer", "crown_pass-margins", "crown_pass-mask",
    "hbox_relu", "optimised_pass", "plane_search", "relu_relaxation", "robust_cross_entropy", "sign_ascent",
)  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NAMES)
def test_op(benchmark: Callable, per_pair: Callable, name: str, backend: str) -> None:
    benchmark.group = name
    op = getattr(ops, name.split("-")[0])
    given = arguments(name)
    benchmark.pedantic(lambda: op(*given, backend=backend), rounds=5, warmup_rounds=1)
    per_pair(MEMBERS * SAMPLES)


def test_every_op_is_measured() -> None:
    assert {name.split("-")[0] for name in NAMES} == {op.name for op in ops.ALL}
