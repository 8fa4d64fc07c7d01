"""Evaluations as a table."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from glsk.verify.evaluate import Evaluation

if TYPE_CHECKING:
    from rich.table import Table

NAME_WIDTH = 24
"""Characters of a name that a narrow terminal leaves it; the numbers' columns give way."""


def evaluation_table(rows: Mapping[str, Evaluation], title: str = "") -> "Table":
    """Accuracies in percent, one row an evaluation, one column a certification method; "–" where none was measured.

    Args:
        rows: what to call each evaluation -> the evaluation.
        title: printed above.
    """
    from rich.table import Table

    table = Table(title=title or None)
    table.add_column("", min_width=min(max(map(len, rows), default=0), NAME_WIDTH))
    methods = list(dict.fromkeys(method for row in rows.values() for method in row.certified))
    for column in ("natural", "adversarial", *(f"certified\nby {method}" for method in methods)):
        table.add_column(column, justify="right")
    for name, row in rows.items():
        certified = [f"{100 * row.certified[m]:.2f}" if m in row.certified else "" for m in methods]
        attacked = "–" if row.adversarial is None else f"{100 * row.adversarial:.2f}"
        table.add_row(name, f"{100 * row.natural:.2f}", attacked, *certified)
    return table
