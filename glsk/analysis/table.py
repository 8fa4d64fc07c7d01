"""The accuracies that training runs ended with."""

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from glsk.analysis.rows import Row
from glsk.analysis.runs import Run
from glsk.errors import DataError

if TYPE_CHECKING:
    from rich.table import Table


def final_accuracies(runs: Sequence[Run]) -> list[Row]:
    """One row a label: ``label``, ``runs``, and of each accuracy its mean over the seeds and ``<name> sd``.

    Accuracies are shares in [0, 1] of the last evaluation; the standard deviation is the sample's, None of one run.

    Raises:
        DataError: naming a run that has not been evaluated yet.
    """
    rows: list[Row] = []
    for label in dict.fromkeys(run.label for run in runs):
        last = []
        for run in (run for run in runs if run.label == label):
            if not run.evaluations:
                raise DataError(f"{run.folder}: has not been evaluated yet")
            last.append(run.evaluations[-1])
        row: Row = {"label": label, "runs": len(last)}
        for name in (name for name in last[0] if name not in ("step", "stage", "seconds")):
            values = [found[name] for found in last if isinstance(found.get(name), int | float)]
            if len(values) == len(last):
                row[name] = statistics.fmean(values)
                row[f"{name} sd"] = statistics.stdev(values) if len(values) > 1 else None
        rows.append(row)
    return rows


def accuracy_table(rows: Sequence[Row]) -> "Table":
    """:func:`final_accuracies` in percent."""
    from rich.table import Table

    names = dict.fromkeys(key for row in rows for key in row if f"{key} sd" in row)
    table = Table()
    for column in ("", "runs", *names):
        table.add_column(column, justify="left" if not column else "right")
    for row in rows:
        cells = [_cell(row.get(name), row.get(f"{name} sd")) for name in names]
        table.add_row(row["label"], str(row["runs"]), *cells)
    return table


def _cell(mean: float | None, deviation: float | None) -> str:
    if mean is None:
        return "–"
    return f"{100 * mean:.2f}" + ("" if deviation is None else f" ± {100 * deviation:.2f}")
