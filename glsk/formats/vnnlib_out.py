"""VNN-LIB files and VNN-COMP's counterexamples are written."""

from collections.abc import Sequence
from decimal import Decimal

from torch import Tensor

from glsk.verify.property import Box, Halfspaces, Property


def format_vnnlib(properties: Property | Sequence[Property], comment: str = "") -> str:
    """The content of a VNN-LIB file, from which :func:`glsk.formats.parse_vnnlib` reads the same numbers.

    Args:
        properties: one, or several of as many inputs and outputs, of which the network must violate none.
        comment: lines to put above.

    Raises:
        ValueError: there is no property, or their sizes differ.
    """
    every = (properties,) if isinstance(properties, Property) else tuple(properties)
    sizes = {(p.boxes[0].lower.numel(), p.num_outputs) for p in every}
    if len(sizes) != 1:
        raise ValueError(f"properties: expected one or more of the same size, got (inputs, outputs) {sorted(sizes)}")
    inputs, outputs = sizes.pop()
    lines = [f"; {line}" for line in comment.splitlines()]
    for letter, count in (("X", inputs), ("Y", outputs)):
        lines += ["", *(f"(declare-const {letter}_{i} Real)" for i in range(count))]
    if len(every) == 1:
        lines += ["", *_assertions([_of_box(box) for box in every[0].boxes])]
        lines += ["", *_assertions([_of_outputs(pair) for pair in every[0].unsafe])]
    else:
        cases = [_of_box(box) + _of_outputs(pair) for p in every for box in p.boxes for pair in p.unsafe]
        lines += ["", *_assertions(cases)]
    return "\n".join(lines) + "\n"


def format_counterexample(x: Tensor, y: Tensor) -> str:
    """Inputs x and outputs y, flattened, as VNN-COMP's results files give a counterexample: a variable a line."""
    values = [
        f"({letter}_{i} {_decimal(value)})"
        for letter, part in (("X", x), ("Y", y))
        for i, value in enumerate(part.double().flatten().tolist())
    ]
    return "(" + "\n".join(values) + ")"


def _assertions(cases: list[list[str]]) -> list[str]:
    """Assertions that all of one case holds, or some of several."""
    if len(cases) == 1:
        return [f"(assert {comparison})" for comparison in cases[0]]
    return ["(assert (or", *(f"  (and {' '.join(case)})" for case in cases), "))"]


def _of_box(box: Box) -> list[str]:
    ends = zip(box.lower.flatten().tolist(), box.upper.flatten().tolist(), strict=True)
    return [part for i, (low, high) in enumerate(ends) for part in _between(i, low, high)]


def _between(index: int, low: float, high: float) -> tuple[str, str]:
    return f"(>= X_{index} {_exact(low)})", f"(<= X_{index} {_exact(high)})"


def _of_outputs(pair: Halfspaces) -> list[str]:
    return [_row(row, b) for row, b in zip(pair.A.tolist(), pair.b.tolist(), strict=True)]


def _row(row: list[float], b: float) -> str:
    """Σ row·Y <= b, as `(<= Y_0 Y_1)` where it says no more than that."""
    used = [(j, value) for j, value in enumerate(row) if value != 0.0]
    if b == 0.0 and sorted(value for _, value in used) == [-1.0, 1.0]:
        small, large = sorted(used, key=lambda part: -part[1])
        return f"(<= Y_{small[0]} Y_{large[0]})"
    if len(used) == 1 and abs(used[0][1]) == 1.0:
        (j, sign) = used[0]
        return f"({'<=' if sign > 0 else '>='} Y_{j} {_exact(sign * b)})"
    terms = [f"(* {_exact(value)} Y_{j})" for j, value in used or [(0, 0.0)]]
    total = terms[0] if len(terms) == 1 else f"(+ {' '.join(terms)})"
    return f"(<= {total} {_exact(b)})"


def _exact(value: float) -> str:
    """``value`` to its last decimal, without an exponent, which SMT-LIB does not know."""
    found = format(Decimal(value + 0.0), "f")
    return found if "." in found else f"{found}.0"


def _decimal(value: float) -> str:
    """The shortest decimal that reads back as ``value``, without an exponent."""
    return format(Decimal(repr(value + 0.0)), "f")
