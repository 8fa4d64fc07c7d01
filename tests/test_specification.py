"""margins: the rows f_y - f_j."""

import pytest
import torch

import glsk


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_rows_are_the_label_minus_the_others_in_order(classes: int) -> None:
    y = torch.arange(classes)
    C = glsk.margins(y, classes)
    assert C.shape == (classes, classes - 1, classes)
    assert C.dtype == torch.get_default_dtype()
    logits = torch.randn(classes, classes)
    for b in range(classes):
        wanted = torch.stack([logits[b, b] - logits[b, j] for j in range(classes) if j != b])
        torch.testing.assert_close(C[b] @ logits[b], wanted)


def test_any_integer_dtype() -> None:
    assert torch.equal(glsk.margins(torch.tensor([1, 3], dtype=torch.uint8)), glsk.margins(torch.tensor([1, 3])))


@pytest.mark.parametrize("y", [torch.tensor([1.0]), torch.tensor([True]), [1, 2], torch.tensor([1j])])
def test_labels_must_be_integers(y: object) -> None:
    with pytest.raises(TypeError, match="y: expected an integer tensor"):
        glsk.margins(y)


@pytest.mark.parametrize(
    ("y", "classes", "message"),
    [
        (torch.tensor([10]), 10, r"labels must lie in \[0, 10\)"),
        (torch.tensor([-1]), 10, "labels must lie in"),
        (torch.tensor([]).long(), 10, "expected .B. with B >= 1"),
        (torch.tensor(3), 10, "expected .B."),
        (torch.tensor([[3]]), 10, "expected .B."),
        (torch.tensor([0]), 1, "num_classes: expected at least 2"),
    ],
)
def test_bad_labels_are_refused(y: torch.Tensor, classes: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        glsk.margins(y, classes)


def test_labels_known_to_be_in_range_need_not_be_checked() -> None:
    y = torch.tensor([3, 0, 9])
    assert torch.equal(glsk.margins(y, check_labels=False), glsk.margins(y))
