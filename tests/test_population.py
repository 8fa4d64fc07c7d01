"""Parameters with a population axis: flat, named, the module's own; BatchNorm folding."""

import pytest
import torch
from torch import Tensor, nn

import glsk
from glsk import population
from tests.support import CPU_BACKENDS, METHODS, assert_bounds_close, assert_close

NET = nn.Sequential(
    nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 5, bias=False), nn.ReLU(), nn.Linear(5, 3)
)
BOUNDED = glsk.BoundedModule(NET, (1, 4, 4))
CHAIN = BOUNDED.chain
D = 20 + 40 + 18
X = torch.rand(3, 1, 4, 4)


def members(count: int) -> Tensor:
    return torch.randn(count, D)


def named(count: int) -> dict[str, Tensor]:
    return population.unflatten(CHAIN, members(count))


def test_the_length_of_a_member() -> None:
    assert BOUNDED.num_parameters == D


def test_flat_order_is_that_of_the_module() -> None:
    flat = members(2)
    for p in range(2):
        copy = nn.Sequential(nn.Conv2d(1, 2, 3), NET[1], NET[2], nn.Linear(8, 5, bias=False), NET[4], nn.Linear(5, 3))
        nn.utils.vector_to_parameters(flat[p], copy.parameters())
        for name, value in copy.named_parameters():
            assert torch.equal(population.unflatten(CHAIN, flat)[name][p], value)


def test_flatten_is_the_inverse() -> None:
    flat = members(4)
    assert torch.equal(population.flatten(CHAIN, population.unflatten(CHAIN, flat)), flat)


def test_unflatten_copies_nothing() -> None:
    flat = members(2)
    assert all(
        value.untyped_storage().data_ptr() == flat.data_ptr() for value in population.unflatten(CHAIN, flat).values()
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_every_form_of_the_same_members_gives_the_same_bounds(method: str, backend: str) -> None:
    modules = [
        nn.Sequential(
            nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 5, bias=False), nn.ReLU(), nn.Linear(5, 3)
        )
        for _ in range(3)
    ]
    stacked, _ = torch.func.stack_module_state(modules)
    flat = torch.stack([nn.utils.parameters_to_vector(module.parameters()) for module in modules]).detach()
    options = {"eps": 0.1, "method": method, "backend": backend}
    lower, upper = BOUNDED.compute_bounds(X, params=stacked, **options)
    assert lower.shape == (3, 3, 3)
    again = BOUNDED.compute_bounds(X, params=flat, **options)
    assert torch.equal(lower, again[0])
    assert torch.equal(upper, again[1])
    for p, module in enumerate(modules):
        alone = glsk.BoundedModule(module, (1, 4, 4)).compute_bounds(X, **options)
        assert alone[0].shape == (3, 3)
        assert_bounds_close((lower[p], upper[p]), alone, 1e-6)


def test_omitted_params_are_the_current_weights() -> None:
    net = nn.Sequential(nn.Linear(3, 2))
    bounded = glsk.BoundedModule(net, (3,))
    x = torch.rand(2, 3)
    with torch.no_grad():
        net[0].bias += 5
    assert_close(bounded.compute_bounds(x, eps=0.0)[0].detach(), net(x).detach(), 1e-6)


@pytest.mark.parametrize("shape", [(2, D + 1), (2, D - 1), (D,), (1, 2, D), (0, D)])
def test_a_flat_population_of_the_wrong_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"params: expected \[P, {D}\] with P >= 1, got"):
        BOUNDED.compute_bounds(X, eps=0.1, params=torch.zeros(shape))


def test_missing_and_unexpected_names_are_both_told() -> None:
    params = named(2)
    params["3.bias"] = params.pop("5.bias")
    with pytest.raises(ValueError, match=r"missing \['5.bias'\], unexpected \['3.bias'\]"):
        BOUNDED.compute_bounds(X, eps=0.1, params=params)


@pytest.mark.parametrize(
    "change",
    [
        lambda w: w[0],
        lambda w: w[:1],
        lambda w: w[:0],
        lambda w: w[:, :, :1],
        lambda w: w.flatten(1),
    ],
)
def test_a_parameter_of_the_wrong_shape_is_named(change: object) -> None:
    params = named(2)
    params["3.weight"] = change(params["3.weight"])
    with pytest.raises(ValueError, match=r"params\['3.weight'\]: expected \[P, 5, 8\]"):
        BOUNDED.compute_bounds(X, eps=0.1, params=params)


def test_an_empty_named_population_is_refused() -> None:
    with pytest.raises(ValueError, match=r"params\['0.weight'\].*P >= 1"):
        BOUNDED.compute_bounds(X, eps=0.1, params={name: value[:0] for name, value in named(1).items()})


@pytest.mark.parametrize("params", [[1.0], "weights", {"0.weight": 1.0}, 3])
def test_params_of_another_type_are_refused(params: object) -> None:
    with pytest.raises(TypeError, match="params: expected a tensor"):
        BOUNDED.compute_bounds(X, eps=0.1, params=params)


def test_parameters_must_agree_among_themselves() -> None:
    params = named(2)
    params["3.weight"] = params["3.weight"].double()
    with pytest.raises(ValueError, match=r"params\['3.weight'\]: torch.float64 on cpu, but others are torch.float32"):
        BOUNDED.compute_bounds(X, eps=0.1, params=params)
    params["3.weight"] = params["3.weight"].to("meta", torch.float32)
    with pytest.raises(ValueError, match=r"params\['3.weight'\]: torch.float32 on meta"):
        BOUNDED.compute_bounds(X, eps=0.1, params=params)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(value: float) -> None:
    params = {name: tensor.clone() for name, tensor in named(2).items()}
    params["5.bias"][1, 2] = value
    with pytest.raises(ValueError, match=r"'5.bias' holds NaN or infinity"):
        BOUNDED.compute_bounds(X, eps=0.1, params=params)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_batch_norm_is_folded_per_member(affine: bool, backend: str) -> None:
    net = nn.Sequential(
        nn.Conv2d(2, 3, 3, bias=False),
        nn.BatchNorm2d(3, affine=affine),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(12, 4),
        nn.BatchNorm1d(4, affine=affine),
    ).double()
    net(torch.randn(20, 2, 4, 4, dtype=torch.float64))  # moves the running statistics
    net.eval()
    params = {name: torch.randn(3, *p.shape, dtype=torch.float64) for name, p in net.named_parameters()}
    x = torch.rand(2, 2, 4, 4, dtype=torch.float64)
    found = glsk.BoundedModule(net, (2, 4, 4)).compute_bounds(x, eps=0.0, params=params, backend=backend)
    values = torch.stack(
        [torch.func.functional_call(net, {n: v[p] for n, v in params.items()}, (x,)) for p in range(3)]
    )
    assert_bounds_close(found, (values, values), 1e-12)


def test_batch_norm_must_still_be_in_eval_mode() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)).eval()
    bounded = glsk.BoundedModule(net, (3,))
    net.train()
    with pytest.raises(ValueError, match=r"'1' \(BatchNorm1d\): it must be in eval mode"):
        bounded.compute_bounds(torch.zeros(1, 3), eps=0.1)
