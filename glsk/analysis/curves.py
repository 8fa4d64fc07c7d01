"""Loss and accuracies of training runs, over steps and over time."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from glsk.analysis.rows import Row, new_figure
from glsk.analysis.runs import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def curve_rows(runs: Sequence[Run]) -> list[Row]:
    """One row a run, quantity and step: ``label``, ``folder``, ``quantity``, ``step``, ``seconds``, ``value``.

    Quantities are "loss" and, as shares, those of evaluations: "natural", "adversarial", "certified <method>".
    """
    keys = ("label", "folder", "quantity", "step", "seconds", "value")
    return [
        dict(zip(keys, (run.label, str(run.folder), name, *point), strict=True))
        for run in runs
        for name in run.quantities
        for point in zip(*run.series(name), strict=True)
    ]


def plot_curves(runs: Sequence[Run]) -> "Figure":
    """A row of the figure a quantity, steps on the left and time on the right; of several seeds mean and range."""
    quantities = list(dict.fromkeys(name for run in runs for name in run.quantities))
    labels = list(dict.fromkeys(run.label for run in runs))
    figure = new_figure(9, 1 + 2.2 * len(quantities))
    axes = figure.subplots(len(quantities), 2, sharex="col", sharey="row", squeeze=False)
    unit, length = ("hours", 3600.0) if max((run.seconds for run in runs), default=0.0) >= 7200 else ("minutes", 60.0)
    for row, name in zip(axes, quantities, strict=True):
        for i, label in enumerate(labels):
            series = [run.series(name) for run in runs if run.label == label]
            for ax, which, scale in ((row[0], 0, 1.0), (row[1], 1, length)):
                _draw(ax, [(np.array(s[which]) / scale, np.array(s[2])) for s in series if s[0]], f"C{i}", label)
        share = name != "loss"
        row[0].set_ylabel(name if not share else f"{name}, %")
        for ax in row:
            ax.grid(alpha=0.3)
            if share:
                ax.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}")
            elif all(value > 0 for run in runs for value in run.series(name)[2]):
                ax.set_yscale("log")
    axes[-1][0].set_xlabel("step")
    axes[-1][1].set_xlabel(f"{'CPU ' if any(run.clock == 'cpu' for run in runs) else ''}{unit} of training")
    axes[0][0].legend(fontsize="small")
    return figure


def _draw(ax: "Axes", series: list[tuple[np.ndarray, np.ndarray]], colour: str, label: str) -> None:
    """One curve, or the mean of several and their range, as far as all of them go."""
    if not series:
        return
    mark = "." if len(series[0][0]) < 50 else ""
    if len(series) == 1:
        ax.plot(*series[0], color=colour, label=label, marker=mark, linewidth=1)
        return
    last = min(x[-1] for x, _ in series)
    grid = np.unique(np.concatenate([x[x <= last] for x, _ in series]))
    grid = grid[grid >= max(x[0] for x, _ in series)]
    values = np.stack([np.interp(grid, x, y) for x, y in series])
    ax.plot(grid, values.mean(0), color=colour, label=f"{label} ({len(series)} seeds)", marker=mark, linewidth=1)
    ax.fill_between(grid, values.min(0), values.max(0), color=colour, alpha=0.2, linewidth=0)
