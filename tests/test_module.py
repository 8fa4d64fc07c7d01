"""``BoundedModule``: what the calls return, what they refuse, and what must not change a result."""

import math

import pytest
import torch
from torch import Tensor, nn

import glsk
from tests.support import CPU_BACKENDS, METHODS, NATIVE, assert_bounds_close, assert_close

SHAPE = (2, 6, 5)
NET = nn.Sequential(
    nn.Conv2d(2, 3, (3, 2), (2, 1), (1, 0)), nn.ReLU(), nn.Flatten(), nn.Linear(36, 11), nn.ReLU(), nn.Linear(11, 4)
)
BOUNDED = glsk.BoundedModule(NET, SHAPE)
CALLS = (BOUNDED.compute_bounds, BOUNDED.intermediate_bounds)


def inputs(samples: int = 7, members: int = 5, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """x and params, from their own seed."""
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(samples, *SHAPE, generator=generator, dtype=torch.float64)
    params = torch.randn(members, BOUNDED.num_parameters, generator=generator, dtype=torch.float64) / 4
    return x.to(dtype), params.to(dtype)


def assert_same(found: tuple[Tensor, Tensor], wanted: tuple[Tensor, Tensor], exactly: bool) -> None:
    if exactly:
        assert torch.equal(found[0], wanted[0])
        assert torch.equal(found[1], wanted[1])
    else:
        assert_bounds_close(found, wanted, 1e-5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shapes_and_dtypes(method: str, backend: str, dtype: torch.dtype) -> None:
    x, params = inputs(dtype=dtype)
    C = glsk.margins(torch.arange(7) % 4, 4)
    for C_, rows in ((None, 4), (C, 3), (C.double(), 3), (C[0], 3)):
        lower, upper = BOUNDED.compute_bounds(x, eps=0.1, C=C_, method=method, params=params, backend=backend)
        assert lower.shape == upper.shape == (5, 7, rows)
        assert lower.dtype == upper.dtype == dtype
        assert (lower < upper).all()
    hidden = BOUNDED.intermediate_bounds(x, eps=0.1, method=method, params=params, backend=backend)
    assert {name: tuple(bounds[0].shape) for name, bounds in hidden.items()} == {"0": (5, 7, 36), "3": (5, 7, 11)}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_without_params_there_is_no_population_axis(method: str, backend: str) -> None:
    x, _ = inputs()
    flat = nn.utils.parameters_to_vector(NET.parameters())[None].detach()
    options = {"eps": 0.1, "method": method, "backend": backend}
    lower, upper = BOUNDED.compute_bounds(x, **options)
    wanted = BOUNDED.compute_bounds(x, params=flat, **options)
    assert torch.equal(lower.detach(), wanted[0][0])
    assert torch.equal(upper.detach(), wanted[1][0])
    hidden = BOUNDED.intermediate_bounds(x, **options)
    assert hidden["3"][0].shape == (7, 11)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("method", METHODS)
def test_one_specification_for_all_samples(method: str, backend: str) -> None:
    x, params = inputs()
    C = torch.randn(2, 4)
    options = {"eps": 0.1, "params": params, "method": method, "backend": backend}
    assert_same(
        BOUNDED.compute_bounds(x, C=C, **options),
        BOUNDED.compute_bounds(x, C=C[None].repeat(7, 1, 1), **options),
        exactly=True,
    )


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_spellings_of_a_method(backend: str) -> None:
    x, params = inputs()
    for spelling, name in (("crown", "CROWN"), ("DeepPoly", "CROWN"), ("crown-ibp", "CROWN-IBP"), ("hBOX", "HBox")):
        found, wanted = (
            BOUNDED.compute_bounds(x, eps=0.1, params=params, method=m, backend=backend) for m in (spelling, name)
        )
        assert_same(found, wanted, exactly=True)


def test_the_methods() -> None:
    assert glsk.methods() == ("CROWN", "CROWN-IBP", "DeepZ", "HBox", "IBP", "alpha-CROWN")
    assert glsk.canonical_method("deeppoly") == "CROWN"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("limit", [1, 20_000, 300_000])
def test_a_memory_limit_changes_no_bit(method: str, backend: str, limit: int) -> None:
    """Bit for bit on a compiled backend; the reference multiplies matrices of other sizes, which may round."""
    x, params = inputs()
    C = glsk.margins(torch.arange(7) % 4, 4)
    options = {"eps": 0.1, "params": params, "method": method, "backend": backend}
    exactly = backend != "reference"
    assert_same(
        BOUNDED.compute_bounds(x, C=C, memory_limit=limit, **options),
        BOUNDED.compute_bounds(x, C=C, **options),
        exactly,
    )
    tiled, whole = (BOUNDED.intermediate_bounds(x, memory_limit=m, **options) for m in (limit, 1 << 30))
    for name, bounds in tiled.items():
        assert_same(bounds, whole[name], exactly)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("backend", NATIVE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_number_of_threads_changes_no_bit(method: str, backend: str, dtype: torch.dtype) -> None:
    x, params = inputs(samples=37, members=9, dtype=dtype)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(BOUNDED.compute_bounds(x, eps=0.1, params=params, method=method, backend=backend))
    finally:
        torch.set_num_threads(before)
    assert_same(found[1], found[0], exactly=True)
    assert_same(found[2], found[0], exactly=True)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("backend", NATIVE)
def test_a_member_and_a_sample_do_not_depend_on_their_neighbours(method: str, backend: str) -> None:
    x, params = inputs(samples=19, members=3)
    options = {"eps": 0.1, "method": method, "backend": backend}
    lower, upper = BOUNDED.compute_bounds(x, params=params, **options)
    for p, b in ((0, 0), (1, 17), (2, 18)):
        alone = BOUNDED.compute_bounds(x[b : b + 1], params=params[p : p + 1], **options)
        assert_same(alone, (lower[p : p + 1, b : b + 1], upper[p : p + 1, b : b + 1]), exactly=True)


def _strided(tensor: Tensor) -> Tensor:
    """The same values, every other element of a larger storage."""
    return torch.stack([tensor, torch.full_like(tensor, math.nan)], dim=-1)[..., 0]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_any_strides_are_accepted(method: str, backend: str) -> None:
    x, params = inputs()
    C = glsk.margins(torch.arange(7) % 4, 4)
    options = {"eps": 0.1, "method": method, "backend": backend}
    wanted = BOUNDED.compute_bounds(x, C=C, params=params, **options)
    named = glsk.population.unflatten(BOUNDED.chain, params)
    forms = {
        "strided x": (_strided(x), C, params),
        "channels last": (x.contiguous(memory_format=torch.channels_last), C, params),
        "transposed x": (x.mT.contiguous().mT, C, params),
        "strided C": (x, _strided(C), params),
        "transposed C": (x, C.mT.contiguous().mT, params),
        "strided members": (x, C, _strided(params)),
        "members by column": (x, C, params.T.contiguous().T),
        "every other member": (x, C, params.repeat_interleave(2, 0)[::2]),
        "transposed weights": (x, C, {**named, "3.weight": named["3.weight"].mT.contiguous().mT}),
        "strided weights": (x, C, {name: _strided(value) for name, value in named.items()}),
    }
    for what, (x_, C_, params_) in forms.items():
        found = BOUNDED.compute_bounds(x_, C=C_, params=params_, **options)
        assert all(torch.equal(f, w) for f, w in zip(found, wanted, strict=True)) or backend == "reference", what
        assert_bounds_close(found, wanted, 1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_expanded_inputs_are_accepted(method: str, backend: str) -> None:
    x, params = inputs()
    options = {"eps": 0.1, "method": method, "backend": backend}
    found = BOUNDED.compute_bounds(x[:1].expand(4, -1, -1, -1), params=params[:1].expand(3, -1), **options)
    wanted = BOUNDED.compute_bounds(x[:1], params=params[:1], **options)
    assert_bounds_close(found, tuple(w.expand(3, 4, -1) for w in wanted), 1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_arguments_are_left_alone(method: str, backend: str) -> None:
    x, params = inputs()
    C = glsk.margins(torch.arange(7) % 4, 4)
    copies = [t.clone() for t in (x, params, C)]
    state = {name: value.clone() for name, value in NET.state_dict().items()}
    BOUNDED.compute_bounds(x, eps=0.1, clip=(0, 1), C=C, params=params, method=method, backend=backend)
    assert all(torch.equal(t, copy) for t, copy in zip((x, params, C), copies, strict=True))
    assert all(torch.equal(value, state[name]) for name, value in NET.state_dict().items())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_gradients_reach_the_weights_the_input_and_the_population(method: str, backend: str) -> None:
    """The same on every backend, since a backward pass is the reference's."""
    x, params = inputs(samples=3, members=2, dtype=torch.float64)
    C = glsk.margins(torch.arange(3), 4)
    found = []
    for name in ("reference", backend):
        leaves = x.clone().requires_grad_(), params.clone().requires_grad_()
        lower, upper = BOUNDED.compute_bounds(
            leaves[0], eps=0.1, C=C, params=leaves[1], method=method, backend=name, memory_limit=50_000
        )
        found.append(torch.autograd.grad(lower.sum() + 2 * upper.square().sum(), leaves))
    for gradient, wanted in zip(found[1], found[0], strict=True):
        assert gradient.abs().sum() > 0
        assert_close(gradient, wanted, 1e-9)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_the_modules_own_weights_can_be_trained(backend: str) -> None:
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    x, y = torch.rand(8, 4), torch.arange(8) % 3
    bounded = glsk.BoundedModule(net, (4,))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    losses = []
    for _ in range(10):
        lower, _ = bounded.compute_bounds(x, eps=0.01, C=glsk.margins(y, 3), bound_upper=False, backend=backend)
        loss = glsk.robust_cross_entropy(lower, backend=backend)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"method": "CROWNN"},
            ValueError,
            "method: unknown 'CROWNN'; known: CROWN, CROWN-IBP, DeepZ, HBox, IBP, alpha",
        ),
        ({"method": 3}, TypeError, "method: expected a string, got int"),
        ({"method": None}, TypeError, "method: expected a string"),
        ({"backend": "gpu"}, ValueError, "backend: unknown 'gpu'"),
        ({"memory_limit": 0}, ValueError, "memory_limit: expected a positive number of bytes, got 0"),
        ({"memory_limit": -1}, ValueError, "memory_limit"),
        ({"memory_limit": 1e9}, TypeError, "memory_limit: expected a whole number of bytes, got float"),
        ({"memory_limit": True}, TypeError, "memory_limit: .* got bool"),
        ({"memory_limit": "1 GB"}, TypeError, "memory_limit: .* got str"),
        ({"eps": -1.0}, ValueError, "eps"),
        ({"x": torch.rand(7, 2, 5, 6)}, ValueError, r"x: expected \[B, 2, 6, 5\]"),
        (
            {"x": torch.rand(7, *SHAPE).double()},
            ValueError,
            "'0.weight' is torch.float32 on cpu, the input is torch.float64",
        ),
        ({"params": torch.rand(2, BOUNDED.num_parameters).double()}, ValueError, "torch.float64 on cpu"),
        ({"params": torch.rand(2, BOUNDED.num_parameters, device="meta")}, ValueError, "torch.float32 on meta"),
    ],
)
def test_bad_arguments_are_refused(
    call: object, options: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call(**{"x": inputs()[0], "eps": 0.1, **options})


@pytest.mark.parametrize(
    ("C", "error", "message"),
    [
        (torch.zeros(7, 3, 5), ValueError, r"C: expected \[7, S, 4\] or \[S, 4\], got \[7, 3, 5\]"),
        (torch.zeros(6, 3, 4), ValueError, r"C: expected .* got \[6, 3, 4\]"),
        (torch.zeros(4), ValueError, r"C: expected .* got \[4\]"),
        (torch.zeros(1, 7, 3, 4), ValueError, "C: expected"),
        (torch.zeros(7, 0, 4), ValueError, "C: expected"),
        (torch.zeros(0, 4), ValueError, "C: expected"),
        (torch.full((3, 4), math.nan), ValueError, "C: holds NaN"),
        (torch.zeros(3, 4, device="meta"), ValueError, "C is on meta, the input on cpu"),
        ([[1.0, 0.0, 0.0, 0.0]], TypeError, "C: expected a tensor, got list"),
    ],
)
def test_a_bad_specification_is_refused(C: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        BOUNDED.compute_bounds(inputs()[0], eps=0.1, C=C)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_overflow_is_an_error_not_a_nan(method: str, backend: str) -> None:
    x, params = inputs(samples=1, members=1)
    with pytest.raises(glsk.NumericalError, match="try float64"):
        BOUNDED.compute_bounds(x, eps=0.1, params=params * 1e30, method=method, backend=backend)
    lower, _ = BOUNDED.compute_bounds(
        x.double(), eps=0.1, params=params.double() * 1e30, method=method, backend=backend
    )
    assert lower.isfinite().all()


def test_other_dtypes_are_refused() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.int32):
        with pytest.raises(TypeError, match="x: expected float32 or float64"):
            BOUNDED.compute_bounds(inputs()[0].to(dtype), eps=0)


def test_out_of_memory_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    x, params = inputs()
    BOUNDED.compute_bounds(x, eps=0.1, params=params, backend="reference")
    monkeypatch.setitem(glsk.ops.ibp_affine._implementations, "reference", fail)
    with pytest.raises(torch.OutOfMemoryError) as caught:
        BOUNDED.compute_bounds(x, eps=0.1, params=params, backend="reference", memory_limit=12345)
    assert "memory_limit below 12345 bytes" in caught.value.__notes__[0]
