"""Linear comparisons over numbered inputs and outputs, as VNN-LIB writes them: in rational numbers."""

import itertools
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from glsk.formats.sexpr import Atom, Form

Variable = tuple[str, int]
"""("X", i), an input, or ("Y", j), an output."""

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(?:[eE][-+]?0*(\d+))?")
_MOST_DIGITS = 3
"""Of a decimal exponent: float64 has no more, and the rational number would not end."""
_WHOLE = 2**53
"""Up to here float64 has all whole numbers."""
_VARIABLE = re.compile(r"([XY])_(0|[1-9]\d{0,8})")


@dataclass(frozen=True)
class Linear:
    """The function Σ coefficients[v]·v + constant."""

    coefficients: dict[Variable, Fraction]
    constant: Fraction

    def plus(self, other: "Linear", factor: Fraction | int = 1) -> "Linear":
        """``self + factor * other``."""
        total = dict(self.coefficients)
        for variable, value in other.coefficients.items():
            total[variable] = total.get(variable, Fraction()) + factor * value
        return Linear({v: c for v, c in total.items() if c}, self.constant + factor * other.constant)

    def times(self, factor: Fraction | int) -> "Linear":
        """``factor * self``."""
        return Linear({}, Fraction()).plus(self, factor)


class Bound(NamedTuple):
    """Input X_i is at most (``upper``) or at least ``value``, which is rounded outward."""

    i: int
    upper: bool
    value: float


class Row(NamedTuple):
    """The outputs y with Σ coefficient·y_index <= b, over pairs (index, coefficient) by index.

    ``b`` is rounded up, so that no output that is meant is left out. Coefficients that float64 does not have are scaled
    to whole numbers, and only where those have more than 53 bits rounded to the nearest.
    """

    coefficients: tuple[tuple[int, float], ...]
    b: float


class Reader:
    """Reads terms and comparisons over declared variables; whatever else is refused with its line."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.declared: set[Variable] = set()

    def error(self, part: Atom | Form, why: str) -> ValueError:
        """A ValueError that names the file and the line of ``part``."""
        return ValueError(f"{self.source}:{part.line}: {why}")

    def declare(self, name: Atom | Form) -> None:
        """``name`` is an input or an output from here on."""
        variable = self._variable(name)
        if variable in self.declared:
            raise self.error(name, f"{variable[0]}_{variable[1]} is declared twice")
        self.declared.add(variable)

    def comparison(self, form: Form) -> tuple[Bound | Row, ...]:
        """What ``form``, two or more terms in <=, >= or =, says of one input or of the outputs."""
        terms = [self.term(item) for item in form.items[1:]]
        if len(terms) < 2:
            raise self.error(form, f"'{form.head}' compares {len(terms)} terms, expected at least 2")
        pairs = list(itertools.pairwise(terms))
        below = [a.plus(b, -1) for a, b in pairs] if form.head in ("<=", "=") else []
        above = [b.plus(a, -1) for a, b in pairs] if form.head in (">=", "=") else []
        return tuple(self._negative(form, function) for function in below + above)

    def _negative(self, form: Form, function: Linear) -> Bound | Row:
        """``function`` <= 0."""
        kinds = {kind for kind, _ in function.coefficients}
        try:
            if kinds == {"Y"}:
                return _row(sorted((j, c) for (_, j), c in function.coefficients.items()), -function.constant)
            if kinds == {"X"} and len(function.coefficients) == 1:
                (((_, index), factor),) = function.coefficients.items()
                return Bound(index, factor > 0, outward(-function.constant / factor, up=factor > 0))
        except OverflowError as error:
            raise self.error(form, "a number is beyond float64") from error
        if not kinds:
            raise self.error(form, "compares numbers alone")
        both = "inputs to outputs" if len(kinds) == 2 else "several inputs"
        raise self.error(form, f"relates {both}; an input set is a box, or several")

    def term(self, part: Atom | Form) -> Linear:
        """A linear function: numbers, variables, +, -, products with a number and quotients by one."""
        if isinstance(part, Atom):
            if number := _NUMBER.fullmatch(part.text):
                if len(number.group(2) or "") > _MOST_DIGITS:
                    raise self.error(part, "a number is beyond float64")
                return Linear({}, Fraction(part.text))
            variable = self._variable(part)
            if variable not in self.declared:
                raise self.error(part, f"{part.text} is not declared")
            return Linear({variable: Fraction(1)}, Fraction())
        terms = [self.term(item) for item in part.items[1:]]
        if part.head not in ("+", "-", "*", "/") or not terms:
            raise self.error(part, f"expected a linear term, got {_words(part)}")
        total = terms[0].times(-1) if part.head == "-" and len(terms) == 1 else terms[0]
        for other in terms[1:]:
            total = self._combine(part, total, other)
        return total

    def _combine(self, part: Form, left: Linear, right: Linear) -> Linear:
        if part.head in ("+", "-"):
            return left.plus(right, 1 if part.head == "+" else -1)
        if part.head == "/" and not right.coefficients and right.constant:
            return left.times(1 / right.constant)
        if part.head == "*" and not (left.coefficients and right.coefficients):
            return right.times(left.constant) if not left.coefficients else left.times(right.constant)
        raise self.error(part, f"{_words(part)} is not linear")

    def _variable(self, part: Atom | Form) -> Variable:
        found = _VARIABLE.fullmatch(part.text) if isinstance(part, Atom) else None
        if found is None:
            raise self.error(part, f"expected a number, an input X_<i> or an output Y_<j>, got {_words(part)}")
        return found.group(1), int(found.group(2))


def outward(value: Fraction, up: bool) -> float:
    """The float64 number next to ``value`` that is at least it (``up``) or at most. Raises OverflowError."""
    near = float(value)
    short = near < value if up else near > value
    found = math.nextafter(near, math.inf if up else -math.inf) if short else near
    if math.isinf(found):
        raise OverflowError
    return found + 0.0  # no -0


def _row(coefficients: Iterable[tuple[int, Fraction]], b: Fraction) -> Row:
    terms = list(coefficients)
    if any(float(c) != c for _, c in terms):
        scale = math.lcm(*(c.denominator for _, c in terms))
        if all(abs(c * scale) <= _WHOLE for _, c in terms):
            terms, b = [(j, c * scale) for j, c in terms], b * scale
    return Row(tuple((j, float(c)) for j, c in terms), outward(b, up=True))


def _words(part: Atom | Form) -> str:
    """``part`` as written, cut to a line."""
    text = part.text if isinstance(part, Atom) else f"({part.head} ...)"
    return repr(text if len(text) <= 40 else f"{text[:37]}...")
