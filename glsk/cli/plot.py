"""``glsk plot``."""

from pathlib import Path
from typing import Annotated

import typer

from glsk.cli.errors import one_line_errors, show
from glsk.cli.options import Picture, Runs


@one_line_errors()
def plot(
    runs: Runs,
    out: Picture = Path("runs.png"),
    clock: Annotated[str, typer.Option(help="Time of training steps: wall, or cpu (of all threads).")] = "wall",
) -> None:
    """Loss and accuracies of training runs, over steps and over time; several seeds are a mean and a band."""
    from glsk.analysis.curves import curve_rows, plot_curves
    from glsk.analysis.rows import check_picture, write_figure, write_rows
    from glsk.analysis.runs import read_runs

    check_picture(out)
    found = read_runs(runs, clock)
    write_rows(out.with_suffix(".csv"), curve_rows(found))
    write_figure(out, plot_curves(found))
    show(f"{out}, {out.with_suffix('.csv')}: {len(found)} runs\n")
