"""The Triton kernels against the float64 reference: on the GPU where there is one, else in Triton's interpreter."""

import re
from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor, nn

import glsk
from glsk import ops
from glsk.geometry import encode
from tests.support import METHODS, assert_bounds_close, assert_close
from tests.waits import no_waits

REASON = glsk.backends.why_missing("triton")
pytestmark = [
    pytest.mark.skipif(REASON is not None, reason=str(REASON)),
    *([pytest.mark.gpu] if torch.cuda.is_available() else []),  # and selected by it where there is a device
]

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCE = 1e-4

NETS: dict[str, tuple[Callable[[], nn.Sequential], tuple[int, ...]]] = {
    "linear layers": (
        lambda: nn.Sequential(nn.Linear(7, 20), nn.ReLU(), nn.Linear(20, 5), nn.ReLU(), nn.Linear(5, 4)),
        (7,),
    ),
    "strides and paddings": (
        lambda: nn.Sequential(
            *(nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.ReLU()),
            *(nn.Conv2d(3, 2, (2, 3), stride=(1, 2), padding=(0, 1)), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(18, 6), nn.ReLU(), nn.Linear(6, 3)),
        ),
        (2, 7, 10),
    ),
    "windows that grow into the image": (
        lambda: nn.Sequential(
            *(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 2, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(2, 1, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(20, 3)),
        ),
        (1, 4, 5),
    ),
    "no ReLU between, stride above kernel": (
        lambda: nn.Sequential(
            *(nn.Conv2d(2, 3, (2, 3), stride=(3, 1), padding=(1, 0)), nn.ReLU()),
            *(nn.Conv2d(3, 2, (3, 2), stride=(1, 3), padding=(2, 1)), nn.Conv2d(2, 2, 2), nn.ReLU()),
            *(nn.Conv2d(2, 2, (2, 1), bias=False), nn.Flatten()),
        ),
        (2, 6, 5),
    ),
}


class Query:
    """A network with two members (a slice of a wider population), two boxes and a specification."""

    def __init__(self, name: str) -> None:
        make, shape = NETS[name]
        generator = torch.Generator().manual_seed(len(name))
        self.bounded = glsk.BoundedModule(make(), shape)
        dimension = self.bounded.num_parameters
        self.params = (0.4 * torch.randn(4, dimension + 3, generator=generator))[1:3, 3:].to(DEVICE)
        x = torch.rand(2, *shape, generator=generator)
        self.box = {"x_L": (x - 0.2).to(DEVICE), "x_U": (x + 0.1).to(DEVICE)}
        self.C = torch.randn(2, 3, self.bounded.chain.num_outputs, generator=generator).to(DEVICE)

    def bounded_params(self) -> dict[str, Tensor]:
        """The population by name."""
        return glsk.population.unflatten(self.bounded.chain, self.params)

    def bounds(self, method: str, backend: str, dtype: torch.dtype, **options: object) -> tuple[Tensor, Tensor]:
        box = {name: value.to(dtype) for name, value in self.box.items()}
        C = self.C.to(dtype)
        return self.bounded.compute_bounds(
            **box, C=C, params=self.params.to(dtype), method=method, backend=backend, **options
        )

    def kernels(self, method: str, **options: object) -> tuple[Tensor, Tensor]:
        """By Triton; the parameters stay the slice that they are."""
        return self.bounds(method, "triton", torch.float32, **options)


@cache
def query(name: str) -> Query:
    return Query(name)


@cache
def reference(name: str, method: str) -> tuple[Tensor, Tensor]:
    return query(name).bounds(method, "reference", torch.float64)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NETS)
def test_every_method(name: str, method: str) -> None:
    assert_bounds_close(query(name).kernels(method), reference(name, method), TOLERANCE)


@pytest.mark.parametrize("method", ["CROWN", "HBox"])
def test_every_hidden_unit(method: str) -> None:
    case = query("windows that grow into the image")
    found = case.bounded.intermediate_bounds(**case.box, params=case.params, method=method, backend="triton")
    box = {name: value.double() for name, value in case.box.items()}
    wanted = case.bounded.intermediate_bounds(**box, params=case.params.double(), method=method, backend="reference")
    assert found.keys() == wanted.keys()
    for name in found:
        assert_bounds_close(found[name], wanted[name], TOLERANCE)


def test_without_pruning_and_without_the_upper_bound() -> None:
    """Pruned units are exact for the units behind them only up to what their bounds were used for."""
    name = "strides and paddings"
    plain = query(name).bounds("CROWN", "reference", torch.float64, prune=False)
    lower, upper = query(name).kernels("CROWN", prune=False, bound_upper=False)
    assert upper is None
    assert_close(lower, plain[0], TOLERANCE)


def test_logits_without_a_specification() -> None:
    case = query("linear layers")
    found = case.bounded.compute_bounds(**case.box, params=case.params, backend="triton")
    box = {name: value.double() for name, value in case.box.items()}
    wanted = case.bounded.compute_bounds(**box, params=case.params.double(), backend="reference")
    assert_bounds_close(found, wanted, TOLERANCE)


@pytest.mark.parametrize(("method", "name"), [("CROWN", "linear layers"), ("HBox", "linear layers")])
def test_the_same_bits_however_the_work_is_cut(method: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from glsk.kernels import config

    first = query(name).kernels(method)
    again = query(name).kernels(method)
    monkeypatch.setattr(config, "programs", lambda device: 3)
    other = query(name).kernels(method)
    for found in (again, other):
        assert torch.equal(torch.stack(first), torch.stack(found))
    # Cut along P and B, a row may take another place in a product's tile; NumPy's product then rounds differently.
    least = least_limit(name, method)
    tiled = query(name).kernels(method, memory_limit=least)
    assert_bounds_close(tiled, first, 0.0 if DEVICE == "cuda" else 2e-6)


def least_limit(name: str, method: str) -> int:
    """What a refusal says that the call needs."""
    with pytest.raises(ValueError, match=r"memory_limit: 1 bytes are too few .* on the triton backend") as refused:
        query(name).kernels(method, memory_limit=1)
    return int(re.search(r"at least (\d+) bytes", str(refused.value))[1])


def test_stored_coefficients_and_outputs_are_all_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uninitialised memory made NaN changes nothing: the kernels read only what they have written."""
    name = "strides and paddings"
    case = query(name)

    def fill(made: Tensor) -> Tensor:
        return made.fill_(float("nan") if made.is_floating_point() else 7)

    new_empty, empty, empty_like = Tensor.new_empty, torch.empty, torch.empty_like
    monkeypatch.setattr(Tensor, "new_empty", lambda *args, **options: fill(new_empty(*args, **options)))
    monkeypatch.setattr(torch, "empty", lambda *args, **options: fill(empty(*args, **options)))
    monkeypatch.setattr(torch, "empty_like", lambda *args, **options: fill(empty_like(*args, **options)))
    assert_bounds_close(case.kernels("CROWN"), reference(name, "CROWN"), TOLERANCE)


@pytest.mark.parametrize("precision", ["tf32", "ieee", *(["bf16x3"] if DEVICE == "cuda" else [])])
def test_other_precisions(precision: str) -> None:
    """The interpreter multiplies in float32 whatever the precision, and does not know bf16x3; on a GPU they differ."""
    from glsk.kernels.launch import using_precision

    with using_precision(precision):
        found = query("linear layers").kernels("CROWN-IBP")
    assert_bounds_close(found, reference("linear layers", "CROWN-IBP"), 2e-2 if precision == "tf32" else TOLERANCE)


def test_fp16_products_are_of_bf16_here() -> None:
    from glsk.kernels import launch

    with launch.using_precision("fp16"):
        assert launch.precision() == "bf16x3"


def test_an_unknown_precision_is_refused() -> None:
    from glsk.kernels import launch

    with pytest.raises(ValueError, match="precision: unknown 'fp8'; known: tf32x3, bf16x3, fp16, tf32, ieee"):
        launch.set_precision("fp8")
    assert launch.precision() == "tf32x3"


def test_float64_is_refused() -> None:
    with pytest.raises(glsk.BackendUnavailableError, match=r"serves .* in float32; the tensors are float64"):
        query("linear layers").bounds("IBP", "triton", torch.float64)


EDGES = torch.tensor([[-1.0, 1.0], [-1.0, 2.0], [-2.0, 1.0], [0.0, 3.0], [-3.0, 0.0], [0.0, 0.0], [-1e-30, 1e-30]]).T


@pytest.mark.parametrize("leak", [0.0, 0.3])
def test_hbox_relu(leak: float) -> None:
    lower = torch.cat([EDGES[0], torch.randn(1100)]).to(DEVICE)
    upper = torch.cat([EDGES[1], lower.cpu()[EDGES.shape[1] :] + torch.rand(1100)]).to(DEVICE)
    box = lower + 0.25 * (upper - lower), lower + 0.5 * (upper - lower)
    found = ops.hbox_relu(*box, lower, upper, leak, backend="triton")
    wanted = ops.hbox_relu.reference(*box, lower, upper, leak)
    torch.testing.assert_close(torch.stack(found), torch.stack(wanted), rtol=1e-6 if leak else 0, atol=0)


@pytest.mark.parametrize("scale", [1.0, 200.0])
def test_robust_cross_entropy(scale: float) -> None:
    margin = scale * torch.randn(3, 130, 9)
    found = ops.robust_cross_entropy(margin.to(DEVICE), backend="triton")
    assert_close(found.cpu(), ops.robust_cross_entropy.reference(margin.double()), 1e-6)


def test_an_empty_batch_is_refused_before_anything_is_launched() -> None:
    weight, bias = torch.zeros(2, 4, 3, 1, 1, device=DEVICE), torch.zeros(2, 4, device=DEVICE)
    from glsk.geometry import linear

    empty = torch.zeros(1, 0, 3, device=DEVICE)
    with pytest.raises(ValueError, match="no samples"):
        ops.ibp_affine(empty, empty, weight, bias, list(linear(3, 4, relu=False)), False, 0.0, backend="triton")


def a_pass(name: str) -> dict[str, object]:
    """Arguments of a pass over a whole network, float64."""
    case = query(name)
    population = glsk.population.assemble(case.bounded.chain, case.bounded_params())
    layers, bounds = case.bounded.chain.geometry, []
    for layer in layers[:-1]:
        lower = torch.randn(2, 2, layer.out_features, dtype=torch.float64, device=DEVICE)
        bounds.append((lower, lower + 2 * torch.rand_like(lower)) if layer.relu else (lower.new_empty(0),) * 2)
    return {
        "x_L": case.box["x_L"].double().flatten(1)[None],
        "x_U": case.box["x_U"].double().flatten(1)[None],
        "weights": [w.double() for w in population.weights],
        "biases": [b.double() for b in population.biases],
        "lowers": [lower for lower, _ in bounds],
        "uppers": [upper for _, upper in bounds],
        "lines": [bounds[0][0].new_empty(0)] * len(bounds),
        "C": case.C.double(),
        "known_lower": None,
        "known_upper": None,
        "geometry": encode(layers),
        "leaks": [0.0] * len(layers),
        "rule": "adaptive",
        "bound_upper": True,
    }


def assert_pass_agrees(arguments: dict[str, object]) -> None:
    single = torch.utils._pytree.tree_map_only(Tensor, Tensor.float, arguments)
    found = ops.crown_pass(*single.values(), backend="triton")
    assert_bounds_close(found, ops.crown_pass.reference(*arguments.values()), TOLERANCE)


@pytest.mark.parametrize("leak", [0.0, 0.3])
@pytest.mark.parametrize("rule", ["adaptive", "parallel", "mask"])
@pytest.mark.parametrize("name", ["linear layers", "no ReLU between, stride above kernel"])
def test_lines_by_every_rule(name: str, rule: str, leak: float) -> None:
    arguments = a_pass(name)
    arguments["rule"] = rule
    arguments["leaks"] = [leak] * len(arguments["leaks"])
    assert_pass_agrees(arguments)


@pytest.mark.parametrize("shape", [(2, 1, 1), (1, 2, 1), (2, 2, 3)])
@pytest.mark.parametrize("name", ["linear layers", "strides and paddings"])
def test_given_lines(name: str, shape: tuple[int, int, int]) -> None:
    """For all rows alike by the kernel, and each row its own by the reference; the last layer's by a rule."""
    arguments = a_pass(name)
    for k, lower in enumerate(arguments["lowers"][:-1]):
        if lower.numel():
            arguments["lines"][k] = torch.randn(*shape, 4, lower.shape[2], dtype=torch.float64, device=DEVICE)
    assert_pass_agrees(arguments)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
@pytest.mark.parametrize("rule", ["adaptive", "parallel", "mask"])
def test_a_bound_that_is_not_finite_poisons_its_member_and_sample(rule: str, value: float) -> None:
    arguments = a_pass("linear layers")
    arguments["rule"] = rule
    arguments["lowers"][0][1, 0, 3] = -value
    single = torch.utils._pytree.tree_map_only(Tensor, Tensor.float, arguments)
    for bound in ops.crown_pass(*single.values(), backend="triton"):
        assert bound[1, 0].isnan().all()
        assert bound[0].isfinite().all()
        assert bound[1, 1].isfinite().all()


@pytest.mark.skipif(DEVICE != "cpu", reason="tests/cuda/test_device.py sees the real waits")
@pytest.mark.parametrize("method", METHODS)
def test_an_evaluation_reads_nothing_back(method: str) -> None:
    """What a CUDA graph captures and a training step queues: bounds and loss."""
    given = query("linear layers")
    with no_waits("cpu"):
        lower, _ = given.kernels(method, check_finite=False)
        glsk.robust_cross_entropy(lower, backend="triton")
