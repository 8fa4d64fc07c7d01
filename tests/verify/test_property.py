import pytest
import torch

from glsk.verify.property import Box, Halfspaces, Property, margin_property

LOW, HIGH = torch.zeros(2), torch.ones(2)


def pair(*rows: list[float], b: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(rows), torch.tensor(b)


def test_parts_become_float64_tuples():
    found = Property(((LOW, HIGH),), (pair([1.0, -1.0], b=[0.0]),))
    assert isinstance(found.boxes[0], Box)
    assert isinstance(found.unsafe[0], Halfspaces)
    assert found.unsafe[0].A.dtype == found.boxes[0].lower.dtype == torch.float64
    assert found.input_shape == (2,)
    assert found.num_outputs == 2


def test_contains_and_violated_take_any_box_and_every_row():
    boxes = ((LOW, HIGH), (LOW + 2, HIGH + 2))
    unsafe = (pair([1.0, 0.0], [0.0, 1.0], b=[0.0, 0.0]), pair([-1.0, 0.0], b=[-5.0]))
    found = Property(boxes, unsafe)
    points = torch.tensor([[0.0, 1.0], [2.5, 2.5], [0.5, 2.5], [1.0, 1.0000001]])
    assert found.contains(points).tolist() == [True, True, False, False]
    outputs = torch.tensor([[0.0, -1.0], [-1.0, 1.0], [5.0, 0.0], [float("nan"), 0.0]])
    assert found.violated(outputs).tolist() == [True, False, True, False]


def test_margins_are_violated_where_another_class_is_as_large():
    found = margin_property(torch.tensor([0.0, 0.95]), 1, 0.1, num_classes=3)
    assert len(found.unsafe) == 2
    assert found.boxes[0].lower.tolist() == pytest.approx([0.0, 0.85])
    assert found.boxes[0].upper.tolist() == pytest.approx([0.1, 1.0])
    outputs = torch.tensor([[0.0, 1.0, 0.9], [1.0, 1.0, 0.0], [0.0, 1.0, 2.0]])
    assert found.violated(outputs).tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("boxes", "unsafe", "message"),
    [
        ((), (pair([1.0], b=[0.0]),), "boxes: a property needs at least one"),
        (((LOW, HIGH),), (), "unsafe: a property needs"),
        (((HIGH, LOW),), (pair([1.0], b=[0.0]),), r"boxes\[0\]: the box is empty"),
        (((LOW, HIGH[:1]),), (pair([1.0], b=[0.0]),), r"boxes\[0\]: lower is \[2\], upper \[1\]"),
        (((LOW, HIGH * torch.nan),), (pair([1.0], b=[0.0]),), r"boxes\[0\]: holds NaN"),
        (((LOW, HIGH),), (pair([torch.inf], b=[0.0]),), r"unsafe\[0\]: holds NaN or infinity"),
        (((LOW, HIGH),), (pair([1.0], b=[0.0, 1.0]),), r"unsafe\[0\]: expected A \[m, K\] and b \[m\]"),
        (((LOW, HIGH), (LOW[:1], HIGH[:1])), (pair([1.0], b=[0.0]),), "boxes: the shapes differ"),
    ],
)
def test_what_is_no_property_is_refused_by_name(boxes, unsafe, message):
    with pytest.raises(ValueError, match=message):
        Property(boxes, unsafe)


def test_a_ball_that_the_range_leaves_nothing_of_is_refused():
    with pytest.raises(ValueError, match="the box is empty"):
        margin_property(torch.tensor([2.0]), 0, 0.1, num_classes=2)
    with pytest.raises(ValueError, match="eps"):
        margin_property(torch.tensor([0.5]), 0, float("nan"), num_classes=2)
