"""Where the CUDA gradient of a pass keeps its coefficients, emulated: in shared memory where they fit."""

import math
from types import ModuleType

import pytest
import torch

import glsk
from bench.cost.gradient import layout
from glsk import backends, models
from glsk.geometry import encode
from tests.cuda.emulation import Emulation
from tests.cuda.passes import problem
from tests.cuda.test_backward import CHAINS, DTYPES, check_pass, upstream
from tests.cuda.test_lines import operands


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["convolutions", "CNN3, smaller", "windows that grow into the image"])
def test_chains_without_room_on_chip(backward: ModuleType, device: Emulation, name: str, dtype: torch.dtype) -> None:
    """Coefficients in global memory, 32 lanes of any rows together."""
    layers = CHAINS[name]
    device.set(shared_limit=30 << 10)
    case = problem(layers, rows=None)
    values = [*operands(case), encode(layers), [0.0] * len(layers), "adaptive", True]
    check_pass(backward, values, upstream(values), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [None, 9])
def test_the_passes_of_cnn3(launcher: ModuleType, backward: ModuleType, rows: int | None, dtype: torch.dtype) -> None:
    """At their own size, on chip; and the cost model knows where the coefficients are."""
    chain_ = glsk.BoundedModule(models.build("cnn3"), (1, 28, 28)).chain.geometry
    layers = list(chain_ if rows else chain_[:2])
    counted = backends.pass_workspace("cuda", tuple(layers), rows, torch.device("cpu"), torch.float32, backward=True)
    sums = -(-sum(layer.out_channels * (math.prod(layer.weight_shape[1:]) + 1) for layer in layers) // 32) * 32
    assert layout(layers, rows).on_chip
    assert counted.passes[1].program == 4 * sums  # the rest is shared memory
    case = problem(layers, members=1, samples=1, rows=rows)
    values = [*operands(case), encode(layers), [0.0] * len(layers), "adaptive", True]
    check_pass(backward, values, upstream(values, 0.6 if rows else 0.01), dtype)


def test_the_cost_model_knows_what_fits(device: Emulation, launcher: ModuleType, backward: ModuleType) -> None:
    """The kernel takes shared memory from as many bytes on as the model says, and not from one less."""
    layers = CHAINS["CNN3, smaller"]
    cpu, needed = torch.device("cpu"), layout(layers, 9).shared
    for limit, on_chip in ((needed, True), (needed - 1, False)):
        device.set(shared_limit=limit)
        found = backends.pass_workspace("cuda", tuple(layers), 9, cpu, torch.float32, backward=True).passes[1]
        assert layout(layers, 9, limit).on_chip == on_chip
        assert (found.program < 50_000) == on_chip
