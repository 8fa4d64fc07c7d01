"""The fused gradients of the CPU kernels against autograd through the float64 reference."""

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import glsk
from glsk import ops
from glsk.geometry import encode
from tests.chains import Case, cases, near_kink
from tests.support import scale

pytestmark = pytest.mark.skipif(
    glsk.backends.why_missing("cpu") is not None, reason=str(glsk.backends.why_missing("cpu"))
)

METHODS = ("IBP", "HBox", "CROWN-IBP", "CROWN", "DeepZ")


def gradients(case: Case, method: str, backend: str, dtype: torch.dtype, **options: object) -> dict[str, Tensor]:
    """Of a sum of the bounds with fixed random weights, by everything that a call is given."""
    leaves = {name: value.to(dtype).requires_grad_() for name, value in case.params.items()}
    box = {"x_L": case.x_L.to(dtype).requires_grad_(), "x_U": case.x_U.to(dtype).requires_grad_()}
    C = None if case.C is None else case.C.to(dtype).requires_grad_()
    lower, upper = glsk.BoundedModule(case.net, case.input_shape).compute_bounds(
        **box, C=C, params=leaves, method=method, backend=backend, **options
    )
    generator = torch.Generator().manual_seed(0)
    total = sum(
        (bound * torch.randn(bound.shape, generator=generator, dtype=torch.float64).to(dtype)).sum()
        for bound in (lower, upper)
        if bound is not None
    )
    wanted = leaves | box | ({} if C is None else {"C": C})
    found = torch.autograd.grad(total, list(wanted.values()), allow_unused=True)
    return {name: torch.zeros_like(t) if g is None else g for (name, t), g in zip(wanted.items(), found, strict=True)}


def assert_close(found: dict[str, Tensor], wanted: dict[str, Tensor], tolerance: float) -> None:
    for name, value in wanted.items():
        error = float((found[name].double() - value).abs().max())
        assert error <= tolerance * max(1.0, scale(value)), f"{name}: {error} of {scale(value)}"


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=8, deadline=None)
@given(case=cases())
def test_gradients_are_autograds(method: str, case: Case) -> None:
    if near_kink(case, method):
        return
    for options in ({}, {"prune": False, "bound_upper": False}):
        wanted = gradients(case, method, "reference", torch.float64, **options)
        assert_close(gradients(case, method, "cpu", torch.float64, **options), wanted, 1e-9)


def small(leak: float = 0.0, pool: bool = False) -> tuple[nn.Sequential, Tensor]:
    """A network of strided and padded convolutions, and a batch that fills no whole tile."""
    torch.manual_seed(1)
    act = nn.LeakyReLU(leak) if leak else nn.ReLU()
    middle = [nn.AvgPool2d(2)] if pool else []
    net = nn.Sequential(
        nn.Conv2d(2, 5, 3, stride=2, padding=1), act, *middle, nn.Conv2d(5, 9, 3, padding=1), act, nn.Flatten()
    )
    x = torch.rand(19, 2, 9, 7, dtype=torch.float64)
    net.append(nn.Linear(net(x.float()).shape[1], 4))
    return net.double(), x


def loss_gradient(net: nn.Sequential, x: Tensor, method: str, backend: str, **options: object) -> list[Tensor]:
    y = torch.arange(len(x)) % 4
    bounded = glsk.BoundedModule(net, x)
    lower, _ = bounded.compute_bounds(
        x, eps=0.1, C=glsk.margins(y, 4), method=method, backend=backend, bound_upper=False, **options
    )
    return list(torch.autograd.grad(glsk.robust_cross_entropy(lower), list(net.parameters())))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("leak", "pool"), [(0.0, False), (0.2, False), (0.0, True)])
def test_layers_of_every_kind(method: str, leak: float, pool: bool) -> None:
    net, x = small(leak, pool)
    wanted = loss_gradient(net, x, method, "reference")
    for found, value in zip(loss_gradient(net, x, method, "cpu"), wanted, strict=True):
        torch.testing.assert_close(found, value, rtol=1e-9, atol=1e-10)
    for found, value in zip(loss_gradient(net.float(), x.float(), method, "cpu"), wanted, strict=True):
        assert (found.double() - value).abs().max() <= 1e-4 * max(1.0, float(value.abs().max()))


@pytest.mark.parametrize("method", METHODS)
def test_one_layer(method: str) -> None:
    torch.manual_seed(4)
    net, x = nn.Sequential(nn.Linear(7, 3)).double(), torch.rand(5, 7, dtype=torch.float64)
    found = []
    for backend in ("cpu", "reference"):
        bounds = glsk.BoundedModule(net, x).compute_bounds(x, eps=0.1, method=method, backend=backend)
        found.append(torch.autograd.grad(sum((b * b).sum() for b in bounds), list(net.parameters())))
    for by, wanted in zip(*found, strict=True):
        torch.testing.assert_close(by, wanted, rtol=1e-9, atol=1e-9)


def network(kernels: bool) -> tuple[nn.Sequential, Tensor]:
    """Many rows, over kernels of several widths and one that is its whole input, or over linear layers alone."""
    torch.manual_seed(2)
    if not kernels:
        layers = [nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 21), nn.ReLU(), nn.Linear(21, 11)]
        return nn.Sequential(*layers).double(), torch.rand(18, 5, dtype=torch.float64)
    layers = [
        nn.Conv2d(1, 6, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(6, 9, (3, 4), stride=2, padding=1),
        nn.ReLU(),
    ]
    x = torch.rand(3, 1, 9, 8, dtype=torch.float64)
    net = nn.Sequential(*layers, nn.Flatten())
    net += nn.Sequential(nn.Linear(net(x.float()).shape[1], 19), nn.ReLU(), nn.Linear(19, 11))
    return net.double(), x


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kernels", [False, True])
def test_many_rows(method: str, kernels: bool) -> None:
    net, x = network(kernels)
    C = torch.randn(len(x), 13, 11, dtype=torch.float64)
    found = []
    for backend in ("cpu", "reference"):
        bounds = glsk.BoundedModule(net, x).compute_bounds(x, eps=0.05, C=C, method=method, backend=backend)
        found.append(torch.autograd.grad(sum((b * b).sum() for b in bounds), list(net.parameters())))
    for by, wanted in zip(*found, strict=True):
        torch.testing.assert_close(by, wanted, rtol=1e-9, atol=1e-9 * float(wanted.abs().max()))


@pytest.mark.parametrize("method", METHODS)
def test_gradients_too_small_for_the_dtype_count_as_zero(method: str) -> None:
    net, x = small()
    (net, x), tiny = (net.float(), x.float()), torch.tensor(1e-40)
    lower, _ = glsk.BoundedModule(net, x).compute_bounds(x, eps=0.1, method=method, backend="cpu", bound_upper=False)
    found = torch.autograd.grad(lower, list(net.parameters()), torch.full_like(lower, float(tiny)))
    assert all((by == 0).all() for by in found)
    assert (tiny * 0.5 != 0).all()  # elsewhere they do not


@pytest.mark.parametrize("method", METHODS)
def test_the_same_bits_for_any_number_of_threads(method: str) -> None:
    net, x = small()
    before = torch.get_num_threads()
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(loss_gradient(net, x, method, "cpu"))
    torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("method", METHODS)
def test_a_small_memory_limit_gives_the_same_gradient(method: str) -> None:
    net, x = small()
    for found, wanted in zip(
        loss_gradient(net, x, method, "cpu", memory_limit=20_000), loss_gradient(net, x, method, "cpu"), strict=True
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_hidden_bounds_have_gradients(method: str) -> None:
    net, x = small(leak=0.1)

    def found(backend: str) -> list[Tensor]:
        inner = glsk.BoundedModule(net, x).intermediate_bounds(x, eps=0.05, method=method, backend=backend)
        total = sum((low.sin() + 2 * up.cos()).sum() for low, up in inner.values())
        return list(torch.autograd.grad(total, list(net.parameters())[:4]))

    for value, wanted in zip(found("cpu"), found("reference"), strict=True):
        torch.testing.assert_close(value, wanted, rtol=1e-9, atol=1e-9)


def pass_operands(rows: int, per_row: bool) -> list[object]:
    """A pass through two activations, the first with lines from outside, the second with bounds."""
    generator = torch.Generator().manual_seed(2)
    net, x = small()
    layers = glsk.BoundedModule(net, x).chain.geometry
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    weights = [0.3 * draw(2, *layer.weight_shape) for layer in layers]
    biases = [draw(2, layer.out_channels) for layer in layers]
    lines = 0.5 + 0.1 * draw(1, 19, rows if per_row else 1, 4, layers[0].out_features)
    low = draw(2, 19, layers[1].out_features)
    up = low + draw(*low.shape).abs()
    empty = low.new_empty(0)
    x_L = draw(1, 19, layers[0].in_features)
    C = draw(19, rows, layers[2].out_features)
    tensors = [x_L, x_L + 0.1, weights, biases, [empty, low], [empty, up], [lines, empty], C, None, None]
    return [*tensors, encode(layers), [0.0] * 3, "parallel", True]


@pytest.mark.parametrize("per_row", [False, True])
def test_a_pass_with_lines_from_outside(per_row: bool) -> None:
    found = {}
    for backend in ("reference", "cpu"):
        operands = pass_operands(3, per_row)
        leaves = [t.requires_grad_() for t in tree_leaves(operands) if isinstance(t, Tensor) and t.numel()]
        lower, upper = ops.crown_pass(*operands, backend=backend)
        found[backend] = [lower, upper, *torch.autograd.grad((lower * 2 - upper.sin()).sum(), leaves)]
    for value, wanted in zip(found["cpu"], found["reference"], strict=True):
        torch.testing.assert_close(value, wanted, rtol=1e-9, atol=1e-8)


def test_gradcheck() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).double()
    bounded = glsk.BoundedModule(net, (3,))
    x = torch.rand(2, 3, dtype=torch.float64)
    flat = nn.utils.parameters_to_vector(net.parameters()).detach()[None].requires_grad_()
    assert torch.autograd.gradcheck(
        lambda params, low, up: bounded.compute_bounds(x_L=low, x_U=up, params=params, backend="cpu"),
        (flat, (x - 0.2).requires_grad_(), (x + 0.2).requires_grad_()),
    )


@pytest.mark.parametrize("leak", [0.0, 0.2])
@pytest.mark.parametrize("rows", [2, 11])
def test_optimised_slopes_are_the_references(leak: float, rows: int) -> None:
    net, x = small(leak)
    C = torch.randn(len(x), rows, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    bounded = glsk.BoundedModule(net, x)
    crown = bounded.compute_bounds(x, eps=0.1, C=C, method="CROWN")
    found = {
        backend: bounded.compute_bounds(x, eps=0.1, C=C, method="alpha-CROWN", backend=backend, iterations=8)
        for backend in ("cpu", "reference")
    }
    for side in (0, 1):
        torch.testing.assert_close(found["cpu"][side], found["reference"][side], rtol=1e-7, atol=1e-9)
    assert (found["cpu"][0] >= crown[0] - 1e-12).all()
    assert (found["cpu"][1] <= crown[1] + 1e-12).all()
    assert (found["cpu"][0] > crown[0] + 1e-6).any()
