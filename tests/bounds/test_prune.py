"""Pruning is exact for the ReLUs it decides, and never shows in the intermediate bounds."""

import pytest
import torch
from hypothesis import given, settings

import glsk
from glsk import bounds, box
from glsk.query_options import QueryOptions
from tests.chains import Case, cases
from tests.support import CPU_BACKENDS, METHODS, assert_bounds_close, scale


def _pruned_layers(case: Case, backend: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """What CROWN's passes give for each hidden layer when they may prune."""
    module = glsk.BoundedModule(case.net, case.input_shape)
    ends = box.resolve(module.chain, None, None, None, case.x_L, case.x_U, True)
    query = module._query(module.chain, ends, None, case.params, QueryOptions(backend, prune=True))
    *hidden, _ = bounds.get("CROWN")(query)
    return [found for found, layer in zip(hidden, query.layers, strict=False) if layer.relu]


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@given(case=cases())
@settings(max_examples=20)
def test_a_pruned_unit_really_is_stable(backend: str, case: Case) -> None:
    """Where pruning calls a ReLU stable, the network's values on the box agree; elsewhere it gives CROWN's bounds."""
    names = list(case.hidden("CROWN"))
    for name, (lower, upper) in zip(names, _pruned_layers(case, backend), strict=True):
        stable = (lower >= 0) | (upper <= 0)
        points = torch.cat([case.x_L, case.x_U, (case.x_L + case.x_U) / 2])
        for p in range(case.members):
            values = case.values(p, points)[0][name].unflatten(0, (3, -1))
            slack = 1e-10 * scale(values)
            assert ((values >= lower[p] - slack) & (values <= upper[p] + slack)).all()
            assert ((values >= -slack) | ~((lower[p] >= 0) & stable[p])).all()


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@given(case=cases())
@settings(max_examples=20)
def test_pruned_bounds_stay_sound_at_the_corners(backend: str, case: Case) -> None:
    lower, upper = case.bounds("CROWN", backend, prune=True)
    for x in (case.x_L, case.x_U):
        for p in range(case.members):
            values = case.values(p, x)[1]
            if case.C is not None:
                values = (case.C @ values[..., None]).squeeze(-1)
            slack = 1e-10 * scale(lower, upper)
            assert ((values >= lower[p] - slack) & (values <= upper[p] + slack)).all()


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("method", [m for m in METHODS if m not in ("CROWN", "DeepZ")])
@given(case=cases())
@settings(max_examples=8)
def test_prune_changes_nothing_for_the_other_methods(backend: str, method: str, case: Case) -> None:
    assert_bounds_close(case.bounds(method, backend, prune=True), case.bounds(method, backend, prune=False), 1e-12)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@given(case=cases(spec=False))
@settings(max_examples=12)
def test_one_hidden_layer_has_nothing_to_prune(backend: str, case: Case) -> None:
    """The first layer's bounds are exact for every method, so a two-layer network is the same either way."""
    first = [i for i, module in enumerate(case.net) if isinstance(module, torch.nn.ReLU)]
    if len(first) != 1:
        return
    assert_bounds_close(case.bounds("CROWN", backend, prune=True), case.bounds("CROWN", backend, prune=False), 1e-12)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_on_a_stable_network_pruning_is_exact(backend: str) -> None:
    """All hidden units provably active: pruning skips every row and the bounds do not move."""
    net = torch.nn.Sequential(
        torch.nn.Linear(6, 20), torch.nn.ReLU(), torch.nn.Linear(20, 20), torch.nn.ReLU(), torch.nn.Linear(20, 3)
    ).double()
    with torch.no_grad():
        for i in (0, 2):
            net[i].bias.fill_(10.0)
    x = torch.rand(5, 6, dtype=torch.float64)
    module = glsk.BoundedModule(net, (6,))
    found = module.compute_bounds(x, eps=0.1, backend=backend, prune=True)
    assert_bounds_close(found, module.compute_bounds(x, eps=0.1, backend="reference", prune=False), 1e-12)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_only_the_pruned_call_uses_what_an_interval_proves(backend: str) -> None:
    """A unit that intervals prove active and CROWN does not.

    On x in [-1, 1.2], v = relu(x) + relu(-x): intervals give v >= 0, CROWN v >= x. The output relu(v) - relu(v + 10) is
    -10; with v known to be active the bounds are that number, and without it the upper line of relu(v) costs 1.
    """
    net = torch.nn.Sequential(
        torch.nn.Linear(1, 2),
        torch.nn.ReLU(),
        torch.nn.Linear(2, 2),
        torch.nn.ReLU(),
        torch.nn.Linear(2, 1, bias=False),
    ).double()
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0], [-1.0]]))
        net[0].bias.zero_()
        net[2].weight.fill_(1.0)
        net[2].bias.copy_(torch.tensor([0.0, 10.0]))
        net[4].weight.copy_(torch.tensor([[1.0, -1.0]]))
    box = {"x_L": torch.tensor([[-1.0]]).double(), "x_U": torch.tensor([[1.2]]).double()}
    module = glsk.BoundedModule(net, (1,))
    hidden, _ = module.intermediate_bounds(**box, backend=backend)["2"]
    assert hidden[0, 0].item() == pytest.approx(-1.0)  # never pruned
    _, plain = module.compute_bounds(**box, backend=backend, prune=False)
    _, pruned = module.compute_bounds(**box, backend=backend, prune=True)
    assert plain.item() == pytest.approx(-9.0)
    assert pruned.item() == pytest.approx(-10.0)
