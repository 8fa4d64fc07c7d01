"""torch.func.vmap and torch.compile around glsk's calls: refused by name, or the same numbers."""

import pytest
import torch

import glsk
from glsk import models


@pytest.fixture
def bounded():
    return glsk.BoundedModule(models.build("cnn3", (1, 8, 8), 3, seed=1), (1, 8, 8))


@pytest.fixture
def x():
    return torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def flat(bounded):
    return torch.nn.utils.parameters_to_vector(bounded.net.parameters()).detach()


C = glsk.margins(torch.tensor([0, 1, 2, 0]), 3)


def lower(bounded, x, rows=C, **options):
    return bounded.compute_bounds(x, eps=0.1, C=rows, **options)[0]


def over_samples(bounded, x, flat):
    torch.vmap(lambda one: lower(bounded, one[None], C[:1]))(x)


def over_gradients(bounded, x, flat):
    torch.vmap(torch.func.grad(lambda one: lower(bounded, one[None], C[:1]).sum()))(x)


def over_members(bounded, x, flat):
    torch.vmap(lambda member: lower(bounded, x, params=member[None]))(flat.expand(2, -1))


def inside_a_gradient(bounded, x, flat):
    torch.func.grad(lambda p: torch.vmap(lambda member: lower(bounded, x, params=member[None]))(p).sum())(flat[None])


def over_rows(bounded, x, flat):
    torch.vmap(lambda rows: lower(bounded, x, rows[None]))(C)


def over_labels(bounded, x, flat):
    torch.vmap(lambda y: glsk.margins(y[None], 3))(torch.tensor([0, 1]))


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("x", over_samples),
        ("x", over_gradients),
        ("params", over_members),
        ("params", inside_a_gradient),
        ("C", over_rows),
        ("y", over_labels),
    ],
)
def test_vmap_is_refused_by_the_argument_it_maps(bounded, x, flat, name, call):
    with pytest.raises(TypeError, match=rf"^{name}: a tensor under torch\.func\.vmap; .*axis"):
        call(bounded, x, flat)


@pytest.mark.parametrize("call", ["compute_bounds", "intermediate_bounds"])
def test_a_compiled_function_breaks_at_the_bounds(bounded, x, call):
    def function(x):
        found = getattr(bounded, call)(2 * x, eps=0.1)
        first = found[0] if call == "compute_bounds" else found["0"][0]
        return first + 1

    torch._dynamo.reset()
    assert torch.equal(torch.compile(function, backend="eager")(x), function(x))
    torch._dynamo.reset()
    with pytest.raises(RuntimeError, match=f"{call} cannot be part of a compiled graph: leave out fullgraph=True"):
        torch.compile(function, backend="eager", fullgraph=True)(x)


def test_what_surrounds_the_bounds_is_compiled_whole():
    def function(margins, y):
        return glsk.robust_cross_entropy(margins), glsk.margins(y, 3, check_labels=False)

    torch._dynamo.reset()
    margins, y = torch.linspace(-1, 1, 12).view(2, 3, 2), torch.tensor([0, 2, 1])
    found = torch.compile(function, backend="aot_eager", fullgraph=True)(margins, y)
    for one, other in zip(found, function(margins, y), strict=True):
        assert torch.equal(one, other)
