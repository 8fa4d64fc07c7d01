"""What a caller knows of hidden units: bounds, lines and splits from outside; linear functions behind the bounds."""

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

import glsk
from glsk import lines
from tests.chains import Case, cases
from tests.support import CPU_BACKENDS, METHODS, assert_bounds_close, scale

EVERY = (*METHODS, "alpha-CROWN")
LINEAR = ("CROWN", "CROWN-IBP", "DeepZ", "alpha-CROWN")
LEAKS = (0.0, 0.2)


def net() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Linear(2, 6), nn.ReLU(), nn.Linear(6, 5), nn.LeakyReLU(0.1), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)),
    ).double()


class Query:
    """A small network, two members, three boxes in the plane, and points of each box."""

    def __init__(self) -> None:
        torch.manual_seed(3)
        self.net = net()
        self.bounded = glsk.BoundedModule(self.net, (2,))
        self.params = torch.randn(2, self.bounded.num_parameters, dtype=torch.float64)
        x = torch.rand(3, 2, dtype=torch.float64)
        self.x_L, self.x_U = x - 0.4, x + 0.3
        axis = torch.linspace(0, 1, 41, dtype=torch.float64)
        grid = torch.cartesian_prod(axis, axis)
        self.points = self.x_L[:, None] + grid * (self.x_U - self.x_L)[:, None]

    def bounds(self, method: str = "CROWN", backend: str = "reference", **options: Any) -> Any:
        box = {"x_L": self.x_L, "x_U": self.x_U, "params": self.params}
        return self.bounded.compute_bounds(**{**box, **options}, method=method, backend=backend)

    def hidden(self, method: str = "CROWN") -> dict[str, tuple[Tensor, Tensor]]:
        return self.bounded.intermediate_bounds(
            x_L=self.x_L, x_U=self.x_U, params=self.params, method=method, backend="reference"
        )

    def values(self, p: int, b: int) -> dict[str, Tensor]:
        """Of every Linear layer at the points of box b, [points, n]."""
        named = glsk.population.unflatten(self.bounded.chain, self.params)
        found, z = {}, self.points[b]
        for name, module in self.net.named_children():
            own = {key: named[f"{name}.{key}"][p] for key, _ in module.named_parameters()}
            z = torch.func.functional_call(module, own, (z,))
            if own:
                found[name] = z
        return found


QUERY = Query()
PAIRS = list(itertools.product(range(2), range(3)))


def inside(values: Tensor, bounds: tuple[Tensor, Tensor], p: int, b: int) -> bool:
    return bool(((values >= bounds[0][p, b] - 1e-9) & (values <= bounds[1][p, b] + 1e-9)).all())


@pytest.mark.parametrize("method", EVERY)
@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("mode", ["intersect", "replace"])
def test_a_methods_own_bounds_change_nothing(method: str, backend: str, mode: str) -> None:
    found = QUERY.bounds(method, backend, intermediate=QUERY.hidden(method), intermediate_mode=mode, prune=False)
    assert_bounds_close(found, QUERY.bounds(method, "reference", prune=False), 1e-9)


@pytest.mark.parametrize("method", EVERY)
@pytest.mark.parametrize("mode", ["intersect", "replace"])
def test_the_true_ranges_tighten_and_stay_sound(method: str, mode: str) -> None:
    """Of the hidden units on the grid, a little widened: sound at the grid's points."""
    ranges = {}
    for name in ("0", "2", "4"):
        ends = [[QUERY.values(p, b)[name] for b in range(3)] for p in range(2)]
        low = torch.stack([torch.stack([v.min(0).values for v in row]) for row in ends])
        high = torch.stack([torch.stack([v.max(0).values for v in row]) for row in ends])
        ranges[name] = (low - 1e-6, high + 1e-6)
    found = QUERY.bounds(method, intermediate=ranges, intermediate_mode=mode)
    plain = QUERY.bounds(method, prune=False)
    assert all(inside(QUERY.values(p, b)["6"], found, p, b) for p, b in PAIRS)
    assert (found[1] - found[0]).sum() < (plain[1] - plain[0]).sum()


def test_a_replaced_layer_runs_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    depths = []
    run = glsk.ops.crown_pass._implementations["reference"]
    monkeypatch.setitem(
        glsk.ops.crown_pass._implementations, "reference", lambda *a: depths.append(len(a[2])) or run(*a)
    )
    hidden = QUERY.hidden()
    depths.clear()
    QUERY.bounds(intermediate={"2": hidden["2"]}, intermediate_mode="replace", prune=False)
    assert depths == [3, 4]
    depths.clear()
    QUERY.bounds(intermediate={"2": hidden["2"]}, prune=False)
    assert depths == [2, 3, 4]


def test_intersecting_keeps_the_tighter_end() -> None:
    """By a plain formula: the given bounds replace where they are tighter, and infinite ones say nothing."""
    hidden = QUERY.hidden()
    shift = torch.randn_like(hidden["0"][0])
    given = hidden["0"][0] - shift.clamp(max=0.5), hidden["0"][1] + shift
    given = torch.minimum(*given), torch.maximum(*given)
    both = torch.maximum(given[0], hidden["0"][0]), torch.minimum(given[1], hidden["0"][1])
    both = torch.minimum(*both), torch.maximum(*both)
    found = QUERY.bounds(intermediate={"0": given}, prune=False)
    wanted = QUERY.bounds(intermediate={"0": both}, intermediate_mode="replace", prune=False)
    assert_bounds_close(found, wanted, 1e-12)
    endless = torch.full_like(shift, -torch.inf), torch.full_like(shift, torch.inf)
    assert_bounds_close(QUERY.bounds(intermediate={"0": endless}, prune=False), QUERY.bounds(prune=False), 1e-12)


@pytest.mark.parametrize("method", ["CROWN", "CROWN-IBP"])
@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_a_methods_own_lines_change_nothing(method: str, backend: str) -> None:
    made = {
        name: lines.make("adaptive", *bounds, leak)[:, :, None]
        for (name, bounds), leak in zip(QUERY.hidden(method).items(), (0.0, 0.1, 0.0), strict=True)
    }
    wanted = QUERY.bounds(method, prune=False)
    assert_bounds_close(QUERY.bounds(method, backend, lines=made, prune=False), wanted, 1e-9)
    each_row = {name: given.expand(-1, -1, 3, -1, -1) for name, given in made.items()}
    assert_bounds_close(QUERY.bounds(method, backend, lines=each_row, prune=False), wanted, 1e-9)
    assert_bounds_close(QUERY.bounds(method, backend, lines={"2": made["2"]}, prune=False), wanted, 1e-9)


@pytest.mark.parametrize("method", LINEAR)
def test_any_slopes_below_are_sound(method: str) -> None:
    hidden = QUERY.hidden(method if method != "alpha-CROWN" else "CROWN")
    made = {
        name: lines.leaky(lines.free(lower[:, :, None], upper[:, :, None], torch.rand(2, 3, 3, lower.shape[2])), leak)
        for (name, (lower, upper)), leak in zip(hidden.items(), (0.0, 0.1, 0.0), strict=True)
    }
    found = QUERY.bounds(method, lines={name: given.double() for name, given in made.items()})
    assert all(inside(QUERY.values(p, b)["6"], found, p, b) for p, b in PAIRS)


def split_points(p: int, b: int, splits: dict[str, Tensor]) -> Tensor:
    """Which points of a box obey the splits."""
    values = QUERY.values(p, b)
    kept = torch.ones(len(QUERY.points[b]), dtype=torch.bool)
    for name, split in splits.items():
        kept &= ((split[b] <= 0) | (values[name] >= 0)).all(1) & ((split[b] >= 0) | (values[name] <= 0)).all(1)
    return kept


@pytest.mark.parametrize("method", EVERY)
@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_bounds_hold_on_what_splits_leave(method: str, backend: str) -> None:
    met = 0
    for seed in range(12):
        torch.manual_seed(seed)
        sizes = {"0": 6, "2": 5, "4": 4}
        splits = {name: torch.randint(-1, 2, (3, n)) * (torch.rand(3, n) < 0.25).long() for name, n in sizes.items()}
        found = QUERY.bounds(method, backend, splits=splits)
        assert all(bound.isfinite().all() for bound in found)
        for p, b in PAIRS:
            kept = split_points(p, b, splits)
            met += int(kept.any())
            assert inside(QUERY.values(p, b)["6"][kept], found, p, b)
    assert met > 20


@pytest.mark.parametrize("method", EVERY)
def test_a_split_is_a_bound_cut_at_zero(method: str) -> None:
    """By a plain formula, where no later layer's bounds depend on it."""
    torch.manual_seed(0)
    hidden, split = QUERY.hidden(method if method != "alpha-CROWN" else "CROWN"), torch.randint(-1, 2, (3, 4))
    lower, upper = hidden["4"]
    lower = torch.where(split > 0, lower.clamp(min=0), torch.where(split < 0, lower.clamp(max=0), lower))
    upper = torch.where(split > 0, upper.clamp(min=0), torch.where(split < 0, upper.clamp(max=0), upper))
    wanted = QUERY.bounds(method, intermediate={"4": (lower, upper)}, intermediate_mode="replace", prune=False)
    found = QUERY.bounds(method, splits={"4": split}, prune=False)
    assert_bounds_close(found, wanted, 1e-12)
    assert (found[0] - QUERY.bounds(method, prune=False)[0]).abs().max() > 1e-3


@pytest.mark.parametrize("method", EVERY)
def test_an_empty_subproblem_gives_finite_bounds(method: str) -> None:
    hidden = QUERY.hidden()
    splits = {
        name: torch.where((lower > 0).any(0), -1, torch.where((upper < 0).any(0), 1, 0))
        for name, (lower, upper) in hidden.items()
    }
    assert any(split.any() for split in splits.values())
    for bound in QUERY.bounds(method, splits=splits):
        assert bound.isfinite().all()


@pytest.mark.parametrize("method", LINEAR)
@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_linear_functions_enclose_the_network_and_give_its_bounds(method: str, backend: str) -> None:
    plain = QUERY.bounds(method, backend)
    lower, upper, functions = QUERY.bounds(method, backend, return_linear=True)
    assert isinstance(functions, glsk.LinearBounds)
    assert_bounds_close((lower, upper), plain, 1e-9)
    assert functions.lower_A.shape == functions.upper_A.shape == (2, 3, 3, 2)
    for p, b in PAIRS:
        values = QUERY.values(p, b)["6"]
        below = QUERY.points[b] @ functions.lower_A[p, b].T + functions.lower_b[p, b]
        above = QUERY.points[b] @ functions.upper_A[p, b].T + functions.upper_b[p, b]
        assert (below <= values + 1e-9).all()
        assert (above >= values - 1e-9).all()
        torch.testing.assert_close(below.min(0).values, lower[p, b], rtol=1e-9, atol=1e-9)  # the grid has the corners
        torch.testing.assert_close(above.max(0).values, upper[p, b], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", LINEAR)
@given(case=cases(samples=(1, 3), leaks=LEAKS, pools=True))
@settings(max_examples=8)
def test_linear_functions_of_any_network_in_data_units(method: str, case: Case) -> None:
    """Images, normalisation, BatchNorm, C or none: the least value over the box is the bound."""
    lower, upper, found = case.bounds(method, return_linear=True)
    flat = [A.flatten(3) for A in (found.lower_A, found.upper_A)]
    assert found.lower_A.shape[3:] == case.input_shape
    center, radius = ((case.x_U + s * case.x_L).flatten(1)[None, :, None] / 2 for s in (1, -1))
    least = (flat[0] * center - flat[0].abs() * radius).sum(-1) + found.lower_b
    most = (flat[1] * center + flat[1].abs() * radius).sum(-1) + found.upper_b
    assert_bounds_close((least, most), (lower, upper), 1e-9)
    if method != "alpha-CROWN":
        assert_bounds_close((lower, upper), case.bounds(method), 1e-9)


def test_one_side_and_one_member() -> None:
    module = glsk.BoundedModule(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), (1, 2, 2))
    x = torch.rand(5, 1, 2, 2)
    lower, upper, found = module.compute_bounds(x, eps=0.1, bound_upper=False, return_linear=True)
    assert upper is None
    assert found.upper_A is None
    assert found.upper_b is None
    assert torch.allclose(found.lower_A.flatten(2), module.net[1].weight.expand(5, -1, -1))
    assert torch.equal(found.lower_b, module.net[1].bias.expand(5, -1))
    assert lower.shape == (5, 3)


@pytest.mark.parametrize("method", METHODS)
def test_a_memory_limit_cuts_constraints_too(method: str) -> None:
    torch.manual_seed(1)
    hidden = QUERY.hidden()
    splits = {"2": torch.randint(-1, 2, (3, 5))}
    options: dict[str, Any] = {"intermediate": {"0": (hidden["0"][0] + 0.01, hidden["0"][1])}, "splits": splits}
    if method in LINEAR:
        options["lines"] = {"4": lines.adaptive(*hidden["4"])[:, :, None]}
    wanted, found = (QUERY.bounds(method, **options, memory_limit=limit) for limit in (1 << 30, 1))
    assert_bounds_close(found, wanted, 1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_gradients_reach_what_is_given(method: str) -> None:
    """By finite differences, on a network whose relaxation has no kink nearby."""
    hidden = QUERY.hidden(method)
    given = tuple(end.clone().requires_grad_() for end in (hidden["2"][0] - 0.1, hidden["2"][1] + 0.1))

    def function(lower: Tensor, upper: Tensor) -> Tensor:
        return QUERY.bounds(method, intermediate={"2": (lower, upper)}, intermediate_mode="replace")[0]

    assert torch.autograd.gradcheck(function, given, eps=1e-7, atol=1e-5, fast_mode=True)


def test_gradients_of_linear_functions() -> None:
    params = QUERY.params.clone().requires_grad_()
    made = lines.adaptive(*QUERY.hidden()["4"])[:, :, None].requires_grad_()
    lower, _, functions = QUERY.bounds(params=params, lines={"4": made}, return_linear=True, check_finite=False)
    (lower.sum() + functions.lower_A.square().sum() + functions.upper_b.sum()).backward()
    assert params.grad.abs().sum() > 0
    assert made.grad.abs().sum() > 0


def test_optimised_functions_have_no_gradient() -> None:
    params = QUERY.params.clone().requires_grad_()
    lower, _, functions = QUERY.bounds("alpha-CROWN", params=params, return_linear=True)
    assert not any(tensor.requires_grad for tensor in (lower, *functions))


ZEROS = torch.zeros(3, 6, dtype=torch.float64)
BAD = [
    ({"intermediate": {"1": (ZEROS, ZEROS)}}, ValueError, r"intermediate: \['1'\] name no affine layer"),
    ({"intermediate": {"6": (ZEROS, ZEROS)}}, ValueError, r"intermediate: \['6'\] name no affine layer"),
    ({"intermediate": [ZEROS]}, TypeError, "intermediate: expected a dict"),
    ({"intermediate": {"0": ZEROS}}, TypeError, r"intermediate\['0'\]: expected \(lower, upper\)"),
    ({"intermediate": {"0": (ZEROS, None)}}, TypeError, r"intermediate\['0'\]: expected a tensor"),
    ({"intermediate": {"0": (ZEROS, ZEROS[:2])}}, ValueError, r"intermediate\['0'\]: expected \[2, 3, 6\] or \[3, 6\]"),
    ({"intermediate": {"0": (ZEROS, ZEROS.float())}}, ValueError, r"intermediate\['0'\] is torch.float32"),
    ({"intermediate": {"0": (ZEROS, ZEROS - 1)}}, ValueError, r"intermediate\['0'\]: lower > upper"),
    ({"intermediate": {"0": (ZEROS, ZEROS / 0)}}, ValueError, r"intermediate\['0'\]: lower > upper, or NaN"),
    ({"intermediate_mode": "union"}, ValueError, "intermediate_mode: expected 'intersect' or 'replace', got 'union'"),
    ({"lines": {"0": ZEROS}}, ValueError, r"lines\['0'\]: expected \[2 or 1, 3 or 1, 3 or 1, 4, 6\]"),
    ({"lines": {"0": torch.zeros(1, 1, 2, 4, 6).double()}}, ValueError, r"lines\['0'\]: expected"),
    ({"lines": {"0": torch.zeros(1, 1, 1, 4, 6)}}, ValueError, r"lines\['0'\] is torch.float32"),
    ({"lines": {"0": torch.full((1, 1, 1, 4, 6), torch.nan).double()}}, ValueError, r"lines\['0'\]: holds NaN"),
    ({"lines": {"0": torch.zeros(1, 1, 1, 4, 6).double()}, "method": "IBP"}, ValueError, "lines: IBP does not bound"),
    ({"return_linear": True, "method": "HBox"}, ValueError, "return_linear: HBox does not bound"),
    ({"return_linear": 1}, TypeError, "return_linear: expected True or False"),
    ({"splits": {"0": ZEROS}}, TypeError, r"splits\['0'\]: expected an integer tensor"),
    ({"splits": {"0": ZEROS.long()[:, :5]}}, ValueError, r"splits\['0'\]: expected \[3, 6\]"),
    ({"splits": {"0": ZEROS.long() + 2}}, ValueError, r"splits\['0'\]: every value must be -1"),
    ({"iterations": 0}, ValueError, "iterations: expected at least 1"),
    ({"iterations": 2.0}, TypeError, "iterations"),
    ({"lr": 0.0}, ValueError, "lr: expected a positive number"),
    ({"lr": "fast"}, TypeError, "lr: expected a number"),
]


@pytest.mark.parametrize(("options", "error", "text"), BAD)
def test_bad_constraints_are_refused(options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        QUERY.bounds(**options)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@given(case=cases(samples=(1, 2)))
@settings(max_examples=6)
def test_forcing_every_unit_to_what_it_is_at_a_point_gives_a_linear_network(backend: str, case: Case) -> None:
    """On a point box all splits are met, and the bounds are the value."""
    case = replace(case, x_U=case.x_L)
    splits = {}
    for name in case.hidden("IBP"):
        values = case.values(0, case.x_L)[0][name]
        splits[name] = torch.where(values >= 0, 1, -1)
    first = replace(case, params={name: value[:1] for name, value in case.params.items()})
    value = case.values(0, case.x_L)[1]
    value = value if case.C is None else (case.C @ value[..., None]).squeeze(-1)
    for method in METHODS:
        found = first.bounds(method, backend, splits=splits)
        assert_bounds_close(found, (value[None], value[None]), 1e-9 * max(1.0, 1 / scale(value)))
