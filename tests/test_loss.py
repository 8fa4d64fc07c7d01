"""The robust cross-entropy: cross-entropy of the worst-case logits."""

import pytest
import torch
import torch.nn.functional as F

import glsk
from tests.support import CPU_BACKENDS


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_the_cross_entropy_of_the_negated_margins(backend: str, dtype: torch.dtype) -> None:
    margins = 5 * torch.randn(3, 7, 9, dtype=dtype)
    logits = torch.cat([torch.zeros(3, 7, 1, dtype=dtype), -margins], dim=2)  # class 0 is the label
    wanted = [F.cross_entropy(logits[p], torch.zeros(7, dtype=torch.long)) for p in range(3)]
    found = glsk.robust_cross_entropy(margins, backend=backend)
    assert found.dtype == dtype
    torch.testing.assert_close(found, torch.stack(wanted))


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_exact_margins_give_the_ordinary_loss(backend: str) -> None:
    logits, y = torch.randn(6, 10), torch.tensor([0, 1, 9, 4, 4, 7])
    margins = (glsk.margins(y) @ logits[..., None]).squeeze(-1)
    torch.testing.assert_close(glsk.robust_cross_entropy(margins, backend=backend), F.cross_entropy(logits, y))


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_one_network_gives_a_scalar(backend: str) -> None:
    margins = torch.randn(5, 9)
    found = glsk.robust_cross_entropy(margins, backend=backend)
    assert found.shape == ()
    torch.testing.assert_close(found, glsk.robust_cross_entropy(margins[None], backend=backend)[0])


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_large_margins_neither_overflow_nor_vanish(backend: str) -> None:
    margins = torch.tensor([[[-1e4, 0.0]], [[1e4, 1e4]], [[50.0, 60.0]]])
    found = glsk.robust_cross_entropy(margins, backend=backend)
    assert found[0] == pytest.approx(1e4)
    assert found[1] == 0
    assert found[2] == pytest.approx(torch.tensor([-50.0, -60.0]).double().exp().sum().item(), rel=1e-5)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_its_gradient(backend: str) -> None:
    margins = (5 * torch.randn(3, 7, 9, dtype=torch.float64)).requires_grad_()
    weights = torch.rand(3, dtype=torch.float64)
    loss = (glsk.robust_cross_entropy(margins, backend=backend) * weights).sum()
    wanted = (F.softplus(torch.logsumexp(-margins, dim=2)).mean(1) * weights).sum()
    torch.testing.assert_close(*(torch.autograd.grad(of, margins)[0] for of in (loss, wanted)), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("worst", [-torch.inf, torch.nan])
def test_an_infinite_loss_has_no_gradient(backend: str, worst: float) -> None:
    margins = torch.zeros(1, 2, 3)
    margins[0, 0, 1] = worst
    margins.requires_grad_()
    (found,) = torch.autograd.grad(glsk.robust_cross_entropy(margins, backend=backend).sum(), margins)
    assert found[0, 0].isnan().any()
    torch.testing.assert_close(found[0, 1], torch.full((3,), -1 / 8))


@pytest.mark.parametrize("shape", [(9,), (2, 3, 4, 5), (0, 3, 9), (2, 0, 9), (2, 3, 0)])
def test_a_bad_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="margin_lower: expected"):
        glsk.robust_cross_entropy(torch.zeros(shape))
