"""The CUDA backend on a GPU; without one, or without the compiled extension, every test is skipped."""

from collections.abc import Callable
from typing import TypeVar

import pytest
import torch
from hypothesis import assume, given, settings
from torch import Tensor

import glsk
from glsk import backends, models, ops
from glsk.geometry import encode
from tests.chains import Case, cases, near_kink
from tests.cuda.passes import Problem, chain, problem
from tests.support import METHODS, TOLERANCE, assert_bounds_close, assert_close
from tests.waits import no_synchronisation

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(backends.why_missing("cuda") is not None, reason=str(backends.why_missing("cuda"))),
]

Result = TypeVar("Result")
DTYPES = (torch.float32, torch.float64)
CNN3 = ((1, 28, 28), [(8, 5, 2, 2), (8, 4, 2, 1)])
CIFAR = ((3, 32, 32), [(8, 5, 2, 2), (8, 4, 2, 1)])
CNN5 = ((1, 28, 28), [(16, 5, 2, 2), (16, 4, 2, 1), (32, 4, 2, 1)])
CNN5_CIFAR = ((3, 32, 32), [(16, 5, 2, 2), (16, 4, 2, 1), (32, 4, 2, 1)])
VARIANTS = [
    ("patch", CNN3, None, None),
    ("patch", CIFAR, None, None),
    ("margins", CNN3, 10, 9),
    ("margins", CIFAR, 10, 9),
    ("deep", CNN5, 512, None),
    ("deep", CNN5, None, None),
    ("deep", CNN5_CIFAR, 512, None),
    ("deep", CNN3, 100, 40),
    ("general", CNN3, None, None),
    ("general", CNN3, 10, 9),
]
SIDES = [(1, False), (2, False), (1, True)]  # signs, hbox


def on_gpu(case: Problem) -> Problem:
    """The same problem with every tensor on the device."""

    def move(value: object) -> object:
        if isinstance(value, Tensor):
            return value.cuda()
        return type(value)(map(move, value)) if isinstance(value, list | tuple) and value else value

    return Problem(case.layers, *(move(value) for name, value in vars(case).items() if name != "layers"))


def query(members: int, samples: int, dtype: torch.dtype = torch.float32) -> tuple[glsk.BoundedModule, dict]:
    """CNN3 with a population around it, on the device."""
    net = models.build("cnn3")
    flat = torch.nn.utils.parameters_to_vector(net.parameters()).detach().to(dtype)
    arguments = {
        "x": torch.rand(samples, 1, 28, 28, dtype=dtype).cuda(),
        "eps": 0.1,
        "clip": (0.0, 1.0),
        "C": glsk.margins(torch.arange(samples) % 10).to(dtype).cuda(),
        "params": (flat + 0.02 * torch.randn(members, flat.numel(), dtype=dtype)).cuda(),
        "backend": "cuda",
    }
    return glsk.BoundedModule(net, (1, 28, 28)), arguments


@pytest.fixture(scope="module")
def launcher() -> object:
    backends.resolve("cuda", torch.device("cuda", 0), torch.float32)
    from glsk.backends import cuda_forward

    return cuda_forward


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", METHODS)
@given(case=cases())
@settings(max_examples=25)
def test_random_chains(method: str, dtype: torch.dtype, case: Case) -> None:
    assume(not near_kink(case, method))
    module = glsk.BoundedModule(case.net, case.input_shape)
    found = module.compute_bounds(
        x_L=case.x_L.to("cuda", dtype),
        x_U=case.x_U.to("cuda", dtype),
        C=None if case.C is None else case.C.to("cuda", dtype),
        params={name: value.to("cuda", dtype) for name, value in case.params.items()},
        method=method,
        backend="cuda",
        prune=False,
    )
    wanted = case.bounds(method, prune=False)
    assert_bounds_close(tuple(t.cpu() for t in found), wanted, TOLERANCE[dtype])


@pytest.mark.parametrize(("signs", "hbox"), SIDES)
@pytest.mark.parametrize(("variant", "shape", "outputs", "rows"), VARIANTS)
def test_every_kernel(
    launcher: object, variant: str, shape: tuple, outputs: int | None, rows: int | None, signs: int, hbox: bool
) -> None:
    given_ = problem(chain(*shape, outputs), members=3, samples=5, rows=rows, known=rows is None and not hbox)
    found = on_gpu(given_).run(launcher, signs, hbox, variant)
    for one, other in zip(found, given_.reference(signs, hbox), strict=True):
        assert_close(one.cpu(), other, TOLERANCE[torch.float32])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", METHODS)
def test_methods_at_a_size_that_fills_the_device(method: str, dtype: torch.dtype) -> None:
    bounded, arguments = query(16, 64, dtype)
    found = bounded.compute_bounds(**arguments, method=method)
    wanted = bounded.compute_bounds(**{**arguments, "backend": "reference"}, method=method)
    assert_bounds_close(tuple(t.cpu() for t in found), tuple(t.cpu() for t in wanted), TOLERANCE[dtype])


@pytest.mark.parametrize("method", METHODS)
def test_same_bits_every_time(method: str) -> None:
    bounded, arguments = query(8, 33)
    first = bounded.compute_bounds(**arguments, method=method)
    for _ in range(5):
        again = bounded.compute_bounds(**arguments, method=method)
        assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


@pytest.mark.parametrize("method", METHODS)
def test_a_member_and_sample_do_not_depend_on_their_company(method: str) -> None:
    bounded, arguments = query(5, 7)
    lower, _ = bounded.compute_bounds(**arguments, method=method)
    alone = {**arguments, "x": arguments["x"][3:4], "C": arguments["C"][3:4], "params": arguments["params"][2:3]}
    assert_close(bounded.compute_bounds(**alone, method=method)[0].cpu(), lower[2:3, 3:4].cpu().double(), 1e-6)


def loss_gradient(bounded: glsk.BoundedModule, arguments: dict, method: str) -> tuple[Tensor, Tensor]:
    """By the weights of every member and by the images."""
    params, x = (arguments[name].detach().clone().requires_grad_() for name in ("params", "x"))
    lower, _ = bounded.compute_bounds(**{**arguments, "params": params, "x": x}, method=method)
    return torch.autograd.grad(glsk.robust_cross_entropy(lower, backend=arguments["backend"]).sum(), [params, x])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", ["IBP", "HBox", "CROWN-IBP", "CROWN", "DeepZ"])
def test_gradients(method: str, dtype: torch.dtype) -> None:
    """Fused ones against the float64 reference's, on its device; the same bits every time."""
    bounded, arguments = query(3, 17, dtype)
    found = loss_gradient(bounded, arguments, method)
    double = {name: v.double() if torch.is_tensor(v) else v for name, v in arguments.items()}
    wanted = loss_gradient(bounded, {**double, "backend": "reference"}, method)
    for one, other in zip(found, wanted, strict=True):
        assert_close(one.cpu(), other.cpu(), TOLERANCE[dtype])
    for one, other in zip(found, loss_gradient(bounded, arguments, method), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("variant", "shape", "outputs", "rows"), VARIANTS)
def test_the_gradient_of_a_pass(
    launcher: object, variant: str, shape: tuple, outputs: int | None, rows: int | None
) -> None:
    """Of every shape that has a kernel, with random upstream gradients, half of them zero."""
    given_ = on_gpu(problem(chain(*shape, outputs), members=2, samples=3, rows=rows, known=rows is None))
    x_L, x_U, weights, biases, lowers, uppers, C = given_._cast(torch.float64)
    none, known = [x_L.new_empty(0)] * len(lowers), given_.known or (None, None)
    values = [x_L, x_U, weights, biases, lowers, uppers, none, C, *known]
    geometry, leaks = encode(given_.layers), [0.0] * len(weights)

    def gradients(backend: str, dtype: torch.dtype) -> list[Tensor]:
        def leaf(value: object) -> object:
            if isinstance(value, list):
                return [leaf(v) for v in value]
            return value.detach().to(dtype).requires_grad_() if isinstance(value, Tensor) else value

        operands = [leaf(value) for value in values]
        made = ops.crown_pass(*operands, geometry, leaks, "adaptive", True, backend=backend)
        torch.manual_seed(1)
        grads = [torch.randn_like(m, dtype=torch.float64) * (torch.rand_like(m) < 0.5) for m in made]
        leaves = [t for o in operands for t in (o if isinstance(o, list) else [o]) if t is not None and t.numel()]
        return list(torch.autograd.grad(list(made), leaves, [g.to(dtype) for g in grads], allow_unused=True))

    for one, other in zip(gradients("cuda", torch.float64), gradients("reference", torch.float64), strict=True):
        assert_close(one.cpu(), other.cpu(), TOLERANCE[torch.float64])


def test_work_goes_to_the_current_stream() -> None:
    bounded, arguments = query(8, 64)
    wanted = bounded.compute_bounds(**arguments)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        late = torch.zeros_like(arguments["x"])
        torch.cuda._sleep(50_000_000)  # the kernels must wait for the copy behind this
        late.copy_(arguments["x"])
        found = bounded.compute_bounds(**{**arguments, "x": late}, check_finite=False)
    torch.cuda.current_stream().wait_stream(stream)
    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))


def captured(call: Callable[[], Result]) -> tuple[torch.cuda.CUDAGraph, Result]:
    """The call as a graph, and where a replay leaves its result; once before, for what is compiled or set up then."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call()
    return graph, result


@pytest.mark.parametrize("method", METHODS)
def test_cuda_graph(method: str) -> None:
    """A call can be captured and replayed on new inputs."""
    bounded, arguments = query(4, 8)
    arguments |= {"check_finite": False, "method": method}
    graph, (lower, upper) = captured(lambda: bounded.compute_bounds(**arguments))
    arguments["x"].copy_(torch.rand_like(arguments["x"]))
    graph.replay()
    wanted = bounded.compute_bounds(**arguments)
    assert torch.equal(lower, wanted[0])
    assert torch.equal(upper, wanted[1])


@pytest.mark.parametrize("backend", ["cuda", "triton"])
@pytest.mark.parametrize("method", METHODS)
def test_an_evaluation_in_a_cuda_graph(method: str, backend: str) -> None:
    """Margins, bounds and loss, captured once and replayed on other images, labels and members."""
    if (reason := backends.why_missing(backend)) is not None:
        pytest.skip(reason)
    bounded, arguments = query(4, 8)
    y = torch.arange(8, device="cuda") % 10
    x, params = arguments["x"], arguments["params"]
    arguments |= {"backend": backend, "method": method, "bound_upper": False, "check_finite": False}

    def losses() -> Tensor:
        lower, _ = bounded.compute_bounds(**{**arguments, "C": glsk.margins(y, check_labels=False)})
        return glsk.robust_cross_entropy(lower, backend=backend)

    graph, found = captured(losses)
    graph.replay()
    before = found.clone()
    x.copy_(torch.rand_like(x))
    y.copy_((y + 3) % 10)
    params.add_(0.01 * torch.randn_like(params))
    graph.replay()
    assert torch.equal(found, losses())
    assert not torch.equal(found, before)


@pytest.mark.parametrize("backend", ["cuda", "triton"])
@pytest.mark.parametrize("method", METHODS)
def test_nothing_waits_for_the_device(method: str, backend: str) -> None:
    if (reason := backends.why_missing(backend)) is not None:
        pytest.skip(reason)
    bounded, arguments = query(4, 8)
    arguments |= {"check_finite": False, "method": method, "backend": backend}
    y = torch.arange(8, device="cuda") % 10

    def losses() -> Tensor:
        lower, _ = bounded.compute_bounds(**{**arguments, "C": glsk.margins(y, check_labels=False)})
        return glsk.robust_cross_entropy(lower, backend=backend)

    losses()
    with no_synchronisation():
        losses()


def test_out_of_memory_says_what_to_do(launcher: object) -> None:
    total = torch.cuda.mem_get_info()[1]
    with pytest.raises(torch.cuda.OutOfMemoryError) as caught:
        launcher.cuda.empty(torch.empty(0, device="cuda"), 4 * total)
    assert "memory_limit" in "".join(caught.value.__notes__)


def test_a_small_memory_limit_changes_no_bound() -> None:
    bounded, arguments = query(8, 32)
    wanted = bounded.compute_bounds(**arguments)
    found = bounded.compute_bounds(**arguments, memory_limit=1 << 20)
    assert_bounds_close(tuple(t.cpu() for t in found), tuple(t.cpu().double() for t in wanted), 1e-6)


def test_non_contiguous_input() -> None:
    bounded, arguments = query(2, 4)
    wanted = bounded.compute_bounds(**arguments)
    wide = torch.rand(4, 1, 28, 56, device="cuda")
    wide[..., ::2] = arguments["x"]
    stretched = torch.zeros(2, 2 * arguments["params"].shape[1], device="cuda")
    stretched[:, ::2] = arguments["params"]
    found = bounded.compute_bounds(**{**arguments, "x": wide[..., ::2], "params": stretched[:, ::2]})
    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))


def test_wrong_devices_are_named() -> None:
    bounded, arguments = query(2, 4)
    with pytest.raises(ValueError, match="agree"):
        bounded.compute_bounds(**{**arguments, "params": arguments["params"].cpu()})
    moved = {name: arguments[name].cpu() for name in ("x", "C", "params")}
    with pytest.raises(glsk.BackendUnavailableError, match="serves cuda"):
        bounded.compute_bounds(**{**arguments, **moved})
    given_ = problem(chain(*CNN3, None))
    layers = (given_.weights, given_.biases, given_.lowers, given_.uppers)
    none = [given_.x_L.new_empty(0)] * (len(given_.layers) - 1)
    rest = (none, None, None, None, encode(given_.layers), [0.0] * len(given_.layers), "adaptive", True)
    with pytest.raises(ValueError, match="must agree"):
        ops.crown_pass(given_.x_L.cuda(), given_.x_U.cuda(), *layers, *rest, backend="cuda")


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two devices")
def test_a_device_that_is_not_current() -> None:
    bounded, arguments = query(2, 4)
    wanted = bounded.compute_bounds(**arguments)
    moved = {name: arguments[name].to("cuda:1") for name in ("x", "C", "params")}
    found = bounded.compute_bounds(**{**arguments, **moved})
    assert found[0].device == torch.device("cuda", 1)
    assert torch.cuda.current_device() == 0
    assert_bounds_close(tuple(t.cpu() for t in found), tuple(t.cpu().double() for t in wanted), 1e-6)


def test_auto_takes_this_backend() -> None:
    assert backends.resolve("auto", torch.device("cuda", 0), torch.float32) == "cuda"
