"""alpha-CROWN: never looser than CROWN, sound, and its gradient is autograd's."""

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

import glsk
from glsk import lines, ops
from glsk.geometry import decode
from glsk.ops.crown_pass import Chain, first_rows
from glsk.ops.optimised_pass import _bounds_and_gradients
from tests.bounds.test_soundness import _assert_inside, _outputs, _points
from tests.chains import Case, cases
from tests.ops.test_registry import sample
from tests.support import CPU_BACKENDS, scale

LEAKS = (0.0, 0.1, 0.7)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@given(case=cases(samples=(1, 3), leaks=LEAKS, pools=True))
@settings(max_examples=5)
def test_no_point_leaves_the_bounds(backend: str, case: Case) -> None:
    lower, upper = case.bounds("alpha-CROWN", backend)
    for p in range(case.members):
        for b in range(len(case.x_L)):
            _assert_inside(_outputs(case, p, b, _points(case, b, p)), lower[p, b], upper[p, b], 1e-10)


@given(case=cases(samples=(1, 3), leaks=LEAKS))
@settings(max_examples=6)
def test_it_is_never_looser_than_crown(case: Case) -> None:
    crown, found = case.bounds("CROWN"), case.bounds("alpha-CROWN")
    slack = 1e-12 * scale(*crown)
    assert (found[0] >= crown[0] - slack).all()
    assert (found[1] <= crown[1] + slack).all()


def test_one_iteration_is_crown() -> None:
    torch.manual_seed(0)
    *arguments, _, _ = sample(ops.optimised_pass, 0)
    plain = ops.crown_pass(*arguments, backend="reference")
    for one, other in zip(ops.optimised_pass(*arguments, 1, 0.1, backend="reference"), plain, strict=True):
        assert torch.equal(one, other)
    more = ops.optimised_pass(*arguments, 20, 0.1, backend="reference")
    assert (more[0] >= plain[0]).all()
    assert (more[1] <= plain[1]).all()
    assert (more[0] > plain[0] + 1e-3).any()
    assert (more[1] < plain[1] - 1e-3).any()


def test_lines_that_are_given_stay() -> None:
    *arguments, _, _ = sample(ops.optimised_pass, 0)
    lowers, uppers, leaks = arguments[4], arguments[5], arguments[11]
    made = [
        lines.make("adaptive", *bounds, leak)[:, :, None] for *bounds, leak in zip(lowers, uppers, leaks, strict=False)
    ]
    arguments[6] = made
    plain = ops.crown_pass(*arguments, backend="reference")
    for one, other in zip(ops.optimised_pass(*arguments, 5, 0.1, backend="reference"), plain, strict=True):
        assert torch.equal(one, other)


def test_an_upper_bound_is_the_negated_lower_bound_of_the_negated_row() -> None:
    """Each side has slopes of its own."""
    *arguments, _, _ = sample(ops.optimised_pass, 0)
    _, upper = ops.optimised_pass(*arguments, 10, 0.1, backend="reference")
    arguments[7] = -arguments[7]
    lower, _ = ops.optimised_pass(*arguments, 10, 0.1, backend="reference")
    torch.testing.assert_close(upper, -lower, rtol=0, atol=1e-13)


def test_the_gradient_is_that_of_autograd() -> None:
    x_L, x_U, weights, biases, lowers, uppers, _, C, _, _, geometry, leaks, *_ = sample(ops.optimised_pass, 0)
    layers = decode(geometry)
    rows = first_rows(weights[-1], C, layers[-1]).expand(len(weights[0]), x_L.shape[1], -1, -1)
    made = [
        lines.make("parallel", *bounds, leak)[:, :, None].expand(-1, -1, rows.shape[2], -1, -1).clone().requires_grad_()
        for *bounds, leak in zip(lowers, uppers, leaks, strict=False)
    ]
    chain = Chain(weights, biases, layers, made)
    wanted = torch.autograd.grad(chain.lower(rows, x_L, x_U).sum(), made)
    with torch.no_grad():
        bounds, _, found = _bounds_and_gradients(chain, rows, x_L, x_U, wanted=True)
    torch.testing.assert_close(bounds, chain.lower(rows, x_L, x_U).detach(), rtol=1e-12, atol=1e-12)
    assert set(found) == {0, 1}
    for k in found:
        torch.testing.assert_close(found[k], wanted[k][..., 0, :], rtol=1e-10, atol=1e-12)


def test_an_optimum_that_is_known() -> None:
    """|x| = ReLU(x) + ReLU(-x) on [-1, 2]: below it lies (a - b) x, at best 0; CROWN has a = 1, b = 0."""
    net = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False)).double()
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0], [-1.0]]))
        net[2].weight.copy_(torch.tensor([[1.0, 1.0]]))
    module = glsk.BoundedModule(net, (1,))
    box = {"x_L": torch.tensor([[-1.0]]).double(), "x_U": torch.tensor([[2.0]]).double()}
    crown, _ = module.compute_bounds(**box, method="CROWN", backend="reference")
    found, _ = module.compute_bounds(**box, method="alpha-CROWN", backend="reference")
    assert crown.item() == pytest.approx(-1.0)
    assert found.item() == pytest.approx(0.0, abs=0.05)
    assert found.item() <= 0


def test_it_works_in_inference_mode() -> None:
    module = glsk.BoundedModule(nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)), (3,))
    x = torch.rand(4, 3)
    wanted = module.compute_bounds(x, eps=0.3, method="alpha-CROWN")
    with torch.inference_mode():
        found = module.compute_bounds(x, eps=0.3, method="alpha-CROWN")
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one, other)


def test_known_bounds_of_stable_rows_are_kept() -> None:
    arguments = list(sample(ops.optimised_pass, 0))
    shape = (2, 3, 4)
    known: list[Tensor] = [torch.full(shape, 5.0, dtype=torch.float64), torch.full(shape, 6.0, dtype=torch.float64)]
    arguments[7], arguments[8], arguments[9] = None, *known
    for one, other in zip(ops.optimised_pass(*arguments, backend="reference"), known, strict=True):
        assert torch.equal(one, other)
