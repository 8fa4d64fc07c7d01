"""VNN-LIB files are read: which outputs a network must not have for which inputs."""

import gzip
import math
import zlib
from collections.abc import Iterable
from pathlib import Path

import torch

from glsk.errors import DataError
from glsk.formats.sexpr import Atom, Form, parse
from glsk.formats.terms import Bound, Reader, Row
from glsk.verify.property import Box, Halfspaces, Property

MAX_CASES = 20_000
_IGNORED = ("set-logic", "set-info", "check-sat", "get-model", "exit")
_Case = tuple[Bound | Row, ...]  # all hold
_Ends = tuple[tuple[float, ...], tuple[float, ...]]  # of a box
_Rows = frozenset[Row]


def read_vnnlib(path: Path | str) -> tuple[Property, ...]:
    """The properties of a VNN-LIB file: a network is unsafe iff it violates one of them.

    A file asserts any combination (``and``, ``or``) of comparisons (``<=``, ``>=``, ``=``) of linear terms, each over a
    single input or over outputs. Boxes that share their unsafe outputs are one property, so nearly every file is one; a
    file whose inputs contradict each other is none. Numbers are read exactly; what float64 has not is rounded so that
    no input of a box and no unsafe output is lost (:class:`glsk.formats.terms.Row` tells of coefficients).

    Args:
        path: the file; ``.gz`` is unpacked.

    Returns:
        properties over flat inputs: boxes [n] of the inputs X_0 .. X_{n-1}, unsafe sets over the outputs Y_0 ...

    Raises:
        OSError: the file cannot be read.
        DataError: naming the file and the line of what is not understood, not linear, or relates several inputs, or
            inputs to outputs; or the input that has no lower or no upper bound.
    """
    source = Path(path)
    try:
        raw = source.read_bytes()
        text = (gzip.decompress(raw) if source.suffix == ".gz" else raw).decode()
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{source}: not a VNN-LIB file ({error})") from error
    return parse_vnnlib(text, str(source))


def parse_vnnlib(text: str, source: str = "VNN-LIB") -> tuple[Property, ...]:
    """As :func:`read_vnnlib`, of the content of a file that messages call ``source``."""
    reader = Reader(source)
    always: _Case = ()
    cases: list[_Case] = [()]
    try:
        for form in parse(text, source):
            match form.head, form.items[1:]:
                case "declare-const", (name, Atom(text="Real")):
                    reader.declare(name)
                case "declare-fun", (name, Form(items=()), Atom(text="Real")):
                    reader.declare(name)
                case "assert", (Form() as formula,):
                    found = _cases(reader, formula)
                    if len(found) == 1:
                        always += found[0]
                    else:
                        cases = _product(reader, formula, cases, found)
                case head, _ if head not in _IGNORED:
                    raise reader.error(form, f"'{head}' is not understood here")
        inputs, outputs = (_count(reader, letter) for letter in "XY")
        unbounded = (-math.inf,) * inputs, (math.inf,) * inputs
        common, common_rows = _narrow(unbounded, always), _rows(always)
        resolved = [(_narrow(common, case), common_rows | _rows(case)) for case in cases]
        return _properties(reader, resolved, outputs)
    except ValueError as error:
        raise DataError(str(error)) from error


def _cases(reader: Reader, form: Form) -> list[_Case]:
    """A formula as a disjunction of conjunctions."""
    if form.head in ("<=", ">=", "="):
        return [reader.comparison(form)]
    parts = form.items[1:]
    if form.head not in ("and", "or") or not parts:
        raise reader.error(form, f"'{form.head}' is not understood here; known: and, or, <=, >=, =")
    found: list[_Case] = [] if form.head == "or" else [()]
    for part in parts:
        if not isinstance(part, Form):
            raise reader.error(part, f"expected a comparison, 'and' or 'or', got {part.text!r}")
        inner = _cases(reader, part)
        found = found + inner if form.head == "or" else _product(reader, form, found, inner)
    return found


def _product(reader: Reader, form: Form, left: list[_Case], right: list[_Case]) -> list[_Case]:
    if len(left) * len(right) > MAX_CASES:
        raise reader.error(form, f"what is asserted up to here has more than {MAX_CASES} cases")
    return [a + b for a in left for b in right]


def _count(reader: Reader, letter: str) -> int:
    """How many inputs or outputs are declared, without a gap."""
    indices = {i for kind, i in reader.declared if kind == letter}
    missing = next(i for i in range(len(indices) + 1) if i not in indices)
    if not indices or missing < len(indices):
        raise ValueError(f"{reader.source}: {letter}_{missing} is not declared")
    return len(indices)


def _narrow(ends: _Ends, case: _Case) -> _Ends:
    """The box that a case leaves of a box."""
    bounds = [part for part in case if isinstance(part, Bound)]
    if not bounds:
        return ends
    lower, upper = map(list, ends)
    for index, is_upper, value in bounds:
        if is_upper:
            upper[index] = min(upper[index], value)
        else:
            lower[index] = max(lower[index], value)
    return tuple(lower), tuple(upper)


def _rows(case: _Case) -> _Rows:
    return frozenset(part for part in case if isinstance(part, Row))


def _properties(reader: Reader, cases: Iterable[tuple[_Ends, _Rows]], outputs: int) -> tuple[Property, ...]:
    """Cases that share their box, and then boxes that share their unsafe sets, brought together in order."""
    sets_of: dict[_Ends, dict[_Rows, None]] = {}
    for ends, rows in cases:
        for i, (low, high) in enumerate(zip(*ends, strict=True)):
            if math.isinf(low) or math.isinf(high):
                raise ValueError(f"{reader.source}: X_{i} has no {'lower' if math.isinf(low) else 'upper'} bound")
        if not rows:
            raise ValueError(f"{reader.source}: nothing is asserted of the outputs, or only in some cases")
        if all(low <= high for low, high in zip(*ends, strict=True)):
            sets_of.setdefault(ends, {})[rows] = None
    boxes_of: dict[tuple[_Rows, ...], list[_Ends]] = {}
    for ends, sets in sets_of.items():
        boxes_of.setdefault(tuple(sets), []).append(ends)
    return tuple(
        Property(
            tuple(Box(*(torch.tensor(end, dtype=torch.float64) for end in ends)) for ends in boxes),
            tuple(_halfspaces(rows, outputs) for rows in sets),
        )
        for sets, boxes in boxes_of.items()
    )


def _halfspaces(rows: _Rows, outputs: int) -> Halfspaces:
    A = torch.zeros(len(rows), outputs, dtype=torch.float64)
    ordered = sorted(rows)
    for i, row in enumerate(ordered):
        for j, coefficient in row.coefficients:
            A[i, j] = coefficient
    return Halfspaces(A, torch.tensor([row.b for row in ordered], dtype=torch.float64))
