"""Linear comparisons over numbered inputs and outputs, as VNN-LIB writes them."""

import itertools
import math
import re
from dataclasses import dataclass
from typing import NamedTuple

from glsk.formats.sexpr import Atom, Form

Variable = tuple[str, int]
"""("X", i), an input, or ("Y", j), an output."""

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_VARIABLE = re.compile(r"([XY])_(0|[1-9]\d{0,8})")


@dataclass(frozen=True)
class Linear:
    """The function Σ coefficients[v]·v + constant."""

    coefficients: dict[Variable, float]
    constant: float

    def plus(self, other: "Linear", factor: float = 1.0) -> "Linear":
        """``self + factor * other``."""
        total = dict(self.coefficients)
        for variable, value in other.coefficients.items():
            total[variable] = total.get(variable, 0.0) + factor * value
        return Linear({v: c for v, c in total.items() if c != 0.0}, self.constant + factor * other.constant)

    def times(self, factor: float) -> "Linear":
        """``factor * self``."""
        return Linear({}, 0.0).plus(self, factor)


class Bound(NamedTuple):
    """Input X_i is at most (``upper``) or at least ``value``."""

    i: int
    upper: bool
    value: float


class Row(NamedTuple):
    """The outputs y with Σ coefficient·y_index <= b, over pairs (index, coefficient) by index."""

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
        below = [a.plus(b, -1.0) for a, b in pairs] if form.head in ("<=", "=") else []
        above = [b.plus(a, -1.0) for a, b in pairs] if form.head in (">=", "=") else []
        return tuple(self._negative(form, function) for function in below + above)

    def _negative(self, form: Form, function: Linear) -> Bound | Row:
        """``function`` <= 0."""
        kinds = {kind for kind, _ in function.coefficients}
        if kinds == {"Y"}:
            row = Row(tuple(sorted((j, c) for (_, j), c in function.coefficients.items())), 0.0 - function.constant)
            values = [row.b, *(c for _, c in row.coefficients)]
        elif kinds == {"X"} and len(function.coefficients) == 1:
            (((_, index), factor),) = function.coefficients.items()
            bound = Bound(index, factor > 0.0, (0.0 - function.constant) / factor)
            values = [bound.value]
        elif kinds:
            both = "inputs to outputs" if len(kinds) == 2 else "several inputs"
            raise self.error(form, f"relates {both}; an input set is a box, or several")
        else:
            raise self.error(form, "compares numbers alone")
        if not all(map(math.isfinite, values)):
            raise self.error(form, "a number is beyond float64")
        return row if kinds == {"Y"} else bound

    def term(self, part: Atom | Form) -> Linear:
        """A linear function: numbers, variables, +, -, products with a number and quotients by one."""
        if isinstance(part, Atom):
            if _NUMBER.fullmatch(part.text):
                return Linear({}, float(part.text))
            variable = self._variable(part)
            if variable not in self.declared:
                raise self.error(part, f"{part.text} is not declared")
            return Linear({variable: 1.0}, 0.0)
        terms = [self.term(item) for item in part.items[1:]]
        if part.head not in ("+", "-", "*", "/") or not terms:
            raise self.error(part, f"expected a linear term, got {_words(part)}")
        total = terms[0].times(-1.0) if part.head == "-" and len(terms) == 1 else terms[0]
        for other in terms[1:]:
            total = self._combine(part, total, other)
        return total

    def _combine(self, part: Form, left: Linear, right: Linear) -> Linear:
        if part.head in ("+", "-"):
            return left.plus(right, 1.0 if part.head == "+" else -1.0)
        if part.head == "/" and not right.coefficients and right.constant != 0.0:
            return Linear({v: c / right.constant for v, c in left.coefficients.items()}, left.constant / right.constant)
        if part.head == "*" and not (left.coefficients and right.coefficients):
            return right.times(left.constant) if not left.coefficients else left.times(right.constant)
        raise self.error(part, f"{_words(part)} is not linear")

    def _variable(self, part: Atom | Form) -> Variable:
        found = _VARIABLE.fullmatch(part.text) if isinstance(part, Atom) else None
        if found is None:
            raise self.error(part, f"expected a number, an input X_<i> or an output Y_<j>, got {_words(part)}")
        return found.group(1), int(found.group(2))


def _words(part: Atom | Form) -> str:
    """``part`` as written, cut to a line."""
    text = part.text if isinstance(part, Atom) else f"({part.head} ...)"
    return repr(text if len(text) <= 40 else f"{text[:37]}...")
