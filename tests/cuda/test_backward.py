"""The gradients of the CUDA kernels, emulated, against autograd through plain float64 statements."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

import glsk
from glsk import backends, models, ops
from glsk.geometry import Geometry, encode, linear
from tests.cuda.emulation import Emulation
from tests.cuda.lines import RULES, pass_by_lines
from tests.cuda.passes import chain, problem
from tests.cuda.test_lines import operands
from tests.support import scale

DTYPES = (torch.float32, torch.float64)
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}
Operands = list[Any]


def tensors(values: Operands) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def by_autograd(function: Callable, values: Operands, grads: tuple[Tensor, ...]) -> list[Tensor]:
    """Gradients of all tensors among the operands, in float64; zero where nothing depends on one."""
    values = tree_map_only(Tensor, lambda t: t.detach().double().requires_grad_(), values)
    made = function(*values)
    total = sum((m * g.double()).sum() for m, g in zip(made, grads, strict=True) if g.numel())
    leaves = tensors(values)
    return list(torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True))


def agree(function: Callable, reference: Callable, values: Operands, grads: tuple, dtype: torch.dtype) -> None:
    """The launcher's gradients of all operands equal autograd's, each on its own scale."""
    wanted = by_autograd(reference, values, grads)
    cast = tree_map_only(Tensor, lambda t: t.to(dtype), values)
    upstream = tuple(g.to(dtype) for g in grads)
    found = function(cast, (), upstream, [True] * len(wanted))
    assert len(found) == len(wanted)
    for leaf, one, other in zip(tensors(cast), found, wanted, strict=True):
        one = torch.zeros_like(leaf) if one is None else one
        assert one.shape == other.shape
        if one.numel():
            error = (one.double() - other).abs().max().item() / scale(other)
            assert error <= TOLERANCE[dtype], (error, tuple(one.shape))


def upstream(values: Operands, share: float = 0.6, upper: bool = True) -> tuple[Tensor, Tensor]:
    """Gradients of the bounds, many of them zero."""
    with torch.no_grad():
        lower, _ = pass_by_lines(*values)
    made = [torch.randn_like(lower) * (torch.rand_like(lower) < share) for _ in range(2)]
    return made[0], made[1] if upper else torch.empty(0)


def check_pass(backward: ModuleType, values: Operands, grads: tuple, dtype: torch.dtype = torch.float64) -> None:
    agree(backward.crown_pass, pass_by_lines, values, grads, dtype)


CHAINS: dict[str, list[Geometry]] = {
    "convolutions": chain((2, 7, 6), [(3, 3, 1, 1), (6, 3, 2, 0), (4, 2, 1, 1)], None),
    "and a linear layer": chain((1, 8, 7), [(3, 4, 2, 2), (9, 3, 2, 1)], 5),
    "CNN3, smaller": chain((1, 12, 11), [(3, 5, 2, 2), (5, 4, 2, 1)], 10),
    "one layer": chain((2, 5, 4), [(3, 3, 2, 1)], None),
    "one linear layer": [linear(7, 5, False)],
    "linear layers": [linear(7, 20, True), linear(20, 9, False), linear(9, 4, False)],
    "stride above kernel": chain((2, 9, 8), [(3, 2, 3, 1), (4, 3, 1, 2), (2, 1, 2, 0)], None),
    "windows that grow into the image": chain((1, 4, 5), [(2, 3, 1, 1), (2, 3, 1, 1), (1, 3, 1, 1)], None),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [None, 1, 9])
@pytest.mark.parametrize("name", CHAINS)
def test_chains(backward: ModuleType, name: str, rows: int | None, dtype: torch.dtype) -> None:
    layers = CHAINS[name]
    if rows is not None and not layers[-1].is_linear and name != "one layer":
        rows = 3
    case = problem(layers, rows=rows, known=rows is None)
    values = [*operands(case), encode(layers), [0.0] * len(layers), "adaptive", True]
    check_pass(backward, values, upstream(values), dtype)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("upper", [True, False])
def test_rules_with_leaks(backward: ModuleType, rule: str, upper: bool) -> None:
    layers = CHAINS["and a linear layer"]
    case = problem(layers, members=1, samples=3, rows=None)
    values = [*operands(case), encode(layers), [0.2, 0.7, 0.0], rule, upper]
    check_pass(backward, values, upstream(values, upper=upper))


@pytest.mark.parametrize("shape", [(2, 3, 1), (1, 1, 1), (2, 3, 0), (1, 1, 0)])
@pytest.mark.parametrize("rows", [None, 7])
def test_explicit_lines(backward: ModuleType, rows: int | None, shape: tuple[int, int, int]) -> None:
    layers = CHAINS["and a linear layer"]
    count = shape[2] or rows or layers[-1].out_features
    lines = [torch.randn(*shape[:2], count, 4, layer.out_features).double() for layer in layers[:-1]]
    case = problem(layers, samples=3, rows=rows)
    values = [*operands(case, lines), encode(layers), [0.0] * 3, "adaptive", True]
    check_pass(backward, values, upstream(values))
    values[6] = [torch.empty(0, dtype=torch.float64), lines[1]]  # bounds of the first layer, lines of the second
    check_pass(backward, values, upstream(values))


@st.composite
def drawn(draw: st.DrawFn) -> tuple[list[Geometry], int | None]:
    """A chain of one to three convolutions, not square in anything, and perhaps a linear layer; rows of C or None."""
    layers: list[Geometry] = []
    image = draw(st.integers(1, 3)), draw(st.integers(2, 7)), draw(st.integers(2, 7))
    for _ in range(draw(st.integers(1, 3))):
        kernel, stride, pad = ([draw(st.integers(low, 3 - (low == 0))) for _ in "yx"] for low in (1, 1, 0))
        kernel = [min(k, n + 2 * p) for k, n, p in zip(kernel, image[1:], pad, strict=True)]
        size = [(n + 2 * p - k) // s + 1 for n, p, k, s in zip(image[1:], pad, kernel, stride, strict=True)]
        out = draw(st.sampled_from((1, 2, 5, 9)))
        layers.append(Geometry(*image, out, *size, *kernel, *stride, *pad, draw(st.integers(0, 1))))
        image = (out, *size)
    if draw(st.booleans()):
        layers.append(linear(layers[-1].out_features, draw(st.integers(1, 9)), False))
    return layers, draw(st.sampled_from((None, 1, 5, 35)))


@given(drawn=drawn(), members=st.integers(1, 3), samples=st.integers(1, 3), seed=st.integers(0, 1000))
@settings(max_examples=15)
def test_drawn_chains(
    backward: ModuleType, drawn: tuple[list[Geometry], int | None], members: int, samples: int, seed: int
) -> None:
    layers, rows = drawn
    torch.manual_seed(seed)
    case = problem(layers, members=members, samples=samples, rows=rows, known=rows is None)
    rule = RULES[seed % 3]
    values = [*operands(case), encode(layers), [0.1 * (seed % 2)] * len(layers), rule, True]
    check_pass(backward, values, upstream(values))


def test_a_box_of_each_member(backward: ModuleType) -> None:
    layers = CHAINS["CNN3, smaller"]
    values = [*operands(problem(layers, members=3, rows=9)), encode(layers), [0.0] * 3, "adaptive", True]
    values[0], values[1] = (x + 0.1 * torch.randn(3, 1, 1, dtype=torch.float64) for x in values[:2])
    check_pass(backward, values, upstream(values))


def test_shared_weights(backward: ModuleType) -> None:
    """Expanded over members, as constant weights of pooling are: each member's own gradient comes back."""
    layers = CHAINS["CNN3, smaller"]
    values = [*operands(problem(layers, members=1, rows=9)), encode(layers), [0.0] * 3, "adaptive", True]
    for i in range(2, 6):
        values[i] = [t.expand(3, *t.shape[1:]) for t in values[i]]
    check_pass(backward, values, upstream(values))


@pytest.mark.parametrize("which", range(10))
def test_only_what_is_needed(backward: ModuleType, which: int) -> None:
    """One operand's gradient at a time is the same as with all of them; the others are left out."""
    layers = CHAINS["and a linear layer"]
    rows = 5 if which == 7 else None
    case = problem(layers, rows=rows, known=rows is None)
    lines = [torch.randn(1, 1, 1, 4, layer.out_features).double() for layer in layers[:-1]] if which == 6 else None
    values = [*operands(case, lines), encode(layers), [0.0] * 3, "adaptive", True]
    grads = upstream(values)
    needs = [i == which for i, value in enumerate(values) for _ in tensors([value])]
    some = backward.crown_pass(values, (), grads, needs)
    every = backward.crown_pass(values, (), grads, [True] * len(needs))
    assert any(needs)
    for need, one, other in zip(needs, some, every, strict=True):
        assert torch.equal(one, other) if need else one is None


def test_rows_without_a_gradient_are_not_visited(backward: ModuleType) -> None:
    """A row whose own weights are NaN does no harm as long as nothing asks for it."""
    layers = CHAINS["and a linear layer"]
    values = [*operands(problem(layers)), encode(layers), [0.0] * 3, "adaptive", True]
    grads = upstream(values)
    grads[0][..., 2] = grads[1][..., 2] = 0
    wanted = by_autograd(pass_by_lines, values, grads)
    values[2][-1][:, 2] = torch.nan
    found = backward.crown_pass(values, (), grads, [True] * len(wanted))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_no_gradient_at_all(backward: ModuleType) -> None:
    layers = CHAINS["and a linear layer"]
    values = [*operands(problem(layers)), encode(layers), [0.0] * 3, "adaptive", True]
    for grad in backward.crown_pass(values, (), (torch.empty(0), torch.empty(0)), [True] * len(tensors(values))):
        assert grad is None or not grad.any()


def test_a_deep_chain_goes_by_the_reference(launcher: ModuleType) -> None:
    layers = chain((1, 4, 4), [(1, 1, 1, 0)] * 30, None)
    values = [*operands(problem(layers, members=1, samples=1)), encode(layers), [0.0] * 30, "adaptive", True]
    grads = upstream(values, 1.0)
    found = by_autograd(lambda *given: ops.crown_pass(*given, backend="cuda"), values, grads)
    for one, other in zip(found, by_autograd(pass_by_lines, values, grads), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", ["convolutions", "CNN3, smaller", "lines by row"])
def test_the_same_bits_in_any_order(backward: ModuleType, device: Emulation, name: str) -> None:
    """Whatever the order of threads between barriers, and however big the device."""
    layers = CHAINS.get(name, CHAINS["CNN3, smaller"])
    case = problem(layers, members=2, samples=3, rows=9 if layers[-1].is_linear else None)
    by_row = [torch.randn(1, 1, 9, 4, layer.out_features).double() for layer in layers[:-1]]
    lines = by_row if name == "lines by row" else None
    values = [*operands(case, lines), encode(layers), [0.0] * len(layers), "adaptive", True]
    values = tree_map_only(Tensor, Tensor.float, values)
    grads = tuple(g.float() for g in upstream(values))
    needs = [True] * len(tensors(values))
    first = backward.crown_pass(values, (), grads, needs)
    device.set(order="backward", multiprocessors=100)
    for one, other in zip(first, backward.crown_pass(values, (), grads, needs), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pairs", [(1, 1), (2, 3), (40, 20)])
@pytest.mark.parametrize("rows", [None, 9])
def test_the_workspace_is_counted(
    launcher: ModuleType,
    backward: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    dtype: torch.dtype,
    pairs: tuple[int, int],
    rows: int | None,
) -> None:
    layers = chain((1, 5, 4), [(2, 3, 1, 1), (3, 2, 2, 0)], 4 if rows else None)
    cpu = torch.device("cpu")
    counted = backends.pass_workspace("cuda", tuple(layers), rows, cpu, dtype, backward=True)
    assert counted.scratch(6) >= backends.pass_workspace("cuda", tuple(layers), rows, cpu, dtype).scratch(6)
    allocated: list[int] = []
    empty = launcher.cuda.empty

    def record(like: Tensor, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        allocated.extend(shape if dtype == torch.uint8 else ())
        return empty(like, *shape, dtype=dtype)

    case = problem(layers, members=pairs[0], samples=pairs[1], rows=rows)
    values = [*operands(case, None, dtype), encode(layers), [0.0] * len(layers), "adaptive", True]
    grads = upstream(values, 0.01)
    monkeypatch.setattr(launcher.cuda, "empty", record)
    backward.crown_pass(values, (), grads, [True] * len(tensors(values)))
    (size,) = allocated
    assert size <= counted.scratch(pairs[0] * pairs[1])


def test_many_members_take_several_launches(backward: ModuleType) -> None:
    """More of them than there are thread blocks: a wave of members after another, and each its own gradient."""
    layers = [linear(3, 4, True), linear(4, 2, False)]
    values = [*operands(problem(layers, members=600, samples=2)), encode(layers), [0.0] * 2, "adaptive", True]
    check_pass(backward, values, upstream(values))


def leaky() -> nn.Sequential:
    head = nn.Linear(3 * 5 * 5, 12), nn.LeakyReLU(0.3), nn.Linear(12, 10)
    return nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.LeakyReLU(0.1), nn.AvgPool2d(2, 2), nn.Flatten(), *head)


@pytest.mark.parametrize("method", ["IBP", "CROWN-IBP", "CROWN", "HBox", "DeepZ"])
@pytest.mark.parametrize("name", ["cnn3", "leaky"])
def test_through_the_public_surface(launcher: ModuleType, name: str, method: str) -> None:
    """The gradient of a loss of bounds by weights and by the image: fused, as by the float64 reference."""
    assert ops.crown_pass.has_backward("cuda")
    assert ops.ibp_affine.has_backward("cuda")
    net = models.build("cnn3", (1, 10, 10)) if name == "cnn3" else leaky()
    bounded = glsk.BoundedModule(net, (1, 10, 10))
    flat = torch.nn.utils.parameters_to_vector(net.parameters()).detach().double()
    x = torch.rand(2, 1, 10, 10, dtype=torch.float64)
    C = glsk.margins(torch.tensor([3, 9])).double()
    population = flat + 0.02 * torch.randn(2, len(flat), dtype=torch.float64)

    def gradients(backend: str) -> list[Tensor]:
        params, image = population.clone().requires_grad_(), x.clone().requires_grad_()
        options = {"eps": 0.05, "method": method, "backend": backend}
        lower, upper = bounded.compute_bounds(image, C=C, params=params, **options)
        loss = glsk.robust_cross_entropy(lower).sum() + 0.1 * upper.sum()
        return [lower, upper, *torch.autograd.grad(loss, [params, image])]

    for one, other in zip(gradients("cuda"), gradients("reference"), strict=True):
        assert (one - other).abs().max() <= 1e-9 * scale(other)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("relu", "leak"), [(False, 0.0), (True, 0.0), (True, 0.3)])
@pytest.mark.parametrize(("members", "samples"), [(1, 1), (2, 3), (1, 40)])
@pytest.mark.parametrize("name", ["conv", "stride above kernel", "linear", "wide"])
def test_ibp_affine(
    backward: ModuleType, name: str, members: int, samples: int, relu: bool, leak: float, dtype: torch.dtype
) -> None:
    layer = {
        "conv": chain((3, 6, 5), [(11, 3, 2, 1)], None)[0],
        "stride above kernel": chain((2, 7, 8), [(3, 2, 3, 1)], None)[0],
        "linear": linear(37, 45, False),
        "wide": chain((1, 20, 19), [(2, 5, 1, 2)], None)[0],  # sums over samples and positions are cut in parts
    }[name]
    center = torch.randn(members, samples, layer.in_features, dtype=torch.float64)
    weight, bias = (torch.randn(members, *s).double() for s in (layer.weight_shape, (layer.out_channels,)))

    values = [center - 0.3, center + 0.4, weight, bias, list(layer), relu, leak]
    shape = (members, samples, layer.out_features)
    agree(backward.ibp_affine, ops.ibp_affine.reference, values, (torch.randn(shape), torch.randn(shape)), dtype)
    agree(backward.ibp_affine, ops.ibp_affine.reference, values, (torch.empty(0), torch.randn(shape)), dtype)
