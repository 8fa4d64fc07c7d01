"""What is verified of a network: that no input of some boxes has outputs of an unsafe set."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from glsk.arguments import with_values
from glsk.specification import margins
from glsk.verify.rounding import outward_ball


class Box(NamedTuple):
    """The inputs x with lower <= x <= upper elementwise, in data units: float64 [*input_shape]."""

    lower: Tensor
    upper: Tensor


class Halfspaces(NamedTuple):
    """The outputs y [K] with A y <= b in every row: float64 A [m, K] and b [m], m >= 1."""

    A: Tensor
    b: Tensor


@dataclass(frozen=True)
class Property:
    """A network is unsafe iff some x of some box has outputs in some of the unsafe sets (VNN-LIB's normal form).

    Attributes:
        boxes: the inputs, of one shape; at least one.
        unsafe: the unsafe outputs, of one K; at least one. A pair (A [m, K], b [m]) becomes :class:`Halfspaces`.
        point: an input [*input_shape] that is tried first; None for the boxes' centres.

    Raises:
        TypeError: a tensor is none, or no floating-point one.
        ValueError: shapes do not agree, a value is NaN or infinite, or a box is empty.
    """

    boxes: tuple[Box, ...]
    unsafe: tuple[Halfspaces, ...]
    point: Tensor | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "boxes", tuple(_box(f"boxes[{i}]", *ends) for i, ends in enumerate(self.boxes)))
        sets = tuple(_halfspaces(f"unsafe[{i}]", *pair) for i, pair in enumerate(self.unsafe))
        object.__setattr__(self, "unsafe", sets)
        for name, parts, shapes in (
            ("boxes", self.boxes, {box.lower.shape for box in self.boxes}),
            ("unsafe", sets, {pair.A.shape[1:] for pair in sets}),
        ):
            if not parts:
                raise ValueError(f"{name}: a property needs at least one")
            if len(shapes) > 1:
                raise ValueError(f"{name}: the shapes differ: {', '.join(str(list(s)) for s in sorted(shapes))}")
        if self.point is not None:
            object.__setattr__(self, "point", _point(self.point, self.input_shape))

    @property
    def input_shape(self) -> tuple[int, ...]:
        return tuple(self.boxes[0].lower.shape)

    @property
    def num_outputs(self) -> int:
        """K."""
        return self.unsafe[0].A.shape[1]

    def contains(self, x: Tensor) -> Tensor:
        """Which of the points x [N, *input_shape] lie in some box: bool [N]. Decided in float64."""
        point = x.double()
        inside = [((point >= box.lower) & (point <= box.upper)).flatten(1).all(dim=1) for box in self.boxes]
        return torch.stack(inside).any(dim=0)

    def violated(self, y: Tensor) -> Tensor:
        """Which of the outputs y [N, K] are unsafe: bool [N]. Decided in float64; NaN is not unsafe."""
        outputs = y.double()
        met = [(outputs @ pair.A.T <= pair.b).all(dim=1) for pair in self.unsafe]
        return torch.stack(met).any(dim=0)


def margin_property(
    x: Tensor,
    y: int | Tensor,
    eps: float,
    clip: tuple[float, float] | None = (0.0, 1.0),
    num_classes: int = 10,
) -> Property:
    """That every input of the clipped eps-ball around x [*input_shape] is of class y: unsafe iff some f_j >= f_y.

    Computed in float64, whatever x's dtype; the box is rounded outward, so that it holds the whole ball.

    Raises:
        ValueError: a label out of range, eps < 0 or not finite, or an x that ``clip`` leaves nothing of.
    """
    if not 0 <= eps < float("inf"):
        raise ValueError(f"eps: must be finite and >= 0, got {eps}")
    label = torch.as_tensor(y).reshape(1)
    rows = margins(label, num_classes)[0].double()
    point = x.double()
    lower, upper = outward_ball(point, eps, clip)
    zero = torch.zeros(1, dtype=torch.float64)
    return Property((Box(lower, upper),), tuple(Halfspaces(row[None], zero) for row in rows), point)


def _box(name: str, lower: Tensor, upper: Tensor) -> Box:
    low, high = (with_values(f"{name}.{end}", t).double() for end, t in (("lower", lower), ("upper", upper)))
    if low.shape != high.shape:
        raise ValueError(f"{name}: lower is {list(low.shape)}, upper {list(high.shape)}")
    _finite(f"{name}", (low, high))
    if not bool((low <= high).all()):
        raise ValueError(f"{name}: the box is empty, lower > upper somewhere")
    return Box(low, high)


def _halfspaces(name: str, A: Tensor, b: Tensor) -> Halfspaces:
    rows, ends = (with_values(f"{name}.{part}", t).double() for part, t in (("A", A), ("b", b)))
    if rows.dim() != 2 or rows.shape[0] < 1 or tuple(ends.shape) != (rows.shape[0],):
        raise ValueError(f"{name}: expected A [m, K] and b [m], got {list(rows.shape)} and {list(ends.shape)}")
    _finite(name, (rows, ends))
    return Halfspaces(rows, ends)


def _point(point: Tensor, shape: tuple[int, ...]) -> Tensor:
    found = with_values("point", point).double()
    if tuple(found.shape) != shape:
        raise ValueError(f"point: expected {list(shape)} as the boxes, got {list(found.shape)}")
    _finite("point", (found,))
    return found


def _finite(name: str, tensors: Sequence[Tensor]) -> None:
    if not all(bool(tensor.isfinite().all()) for tensor in tensors):
        raise ValueError(f"{name}: holds NaN or infinity")
