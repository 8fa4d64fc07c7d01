"""A reader of s-expressions that knows the line of everything it reads."""

import re
from typing import NamedTuple

MAX_DEPTH = 200
_TOKEN = re.compile(r"(?P<space>[ \t\r\f\v]+)|(?P<line>\n)|(?P<comment>;[^\n]*)|(?P<par>[()])|(?P<atom>[^\s();\"|]+)")


class Atom(NamedTuple):
    """A word or a number, as it is written."""

    text: str
    line: int


class Form(NamedTuple):
    """A parenthesised list; ``line`` is that of its opening parenthesis."""

    items: tuple["Atom | Form", ...]
    line: int

    @property
    def head(self) -> str:
        """The first word, or "" if there is none."""
        return self.items[0].text if self.items and isinstance(self.items[0], Atom) else ""


def parse(text: str, source: str) -> list[Form]:
    """The forms of ``text``; comments run from ``;`` to the end of a line.

    Raises:
        ValueError: naming ``source`` and the line, on a parenthesis that does not match, a word outside every form, a
            quoted string or symbol, or forms nested more than ``MAX_DEPTH`` deep.
    """
    forms: list[Form] = []
    open_forms: list[tuple[list[Atom | Form], int]] = []
    line, position = 1, 0
    while position < len(text):
        found = _TOKEN.match(text, position)
        if found is None:
            raise ValueError(f"{source}:{line}: cannot read {text[position]!r}; strings are not supported")
        position, kind, token = found.end(), found.lastgroup, found.group()
        if kind == "line":
            line += 1
        elif token == "(":
            if len(open_forms) == MAX_DEPTH:
                raise ValueError(f"{source}:{line}: forms are nested more than {MAX_DEPTH} deep")
            open_forms.append(([], line))
        elif token == ")":
            if not open_forms:
                raise ValueError(f"{source}:{line}: ')' closes nothing")
            items, began = open_forms.pop()
            form = Form(tuple(items), began)
            (open_forms[-1][0] if open_forms else forms).append(form)
        elif kind == "atom":
            if not open_forms:
                raise ValueError(f"{source}:{line}: {token!r} stands outside every form")
            open_forms[-1][0].append(Atom(token, line))
    if open_forms:
        raise ValueError(f"{source}:{open_forms[-1][1]}: '(' is never closed")
    return forms
