"""How tight each relaxation is on a network: certified accuracy over the perturbation size, and the area below it."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from glsk.analysis.rows import Row, new_figure
from glsk.verify.evaluate import evaluate

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def tightness(
    net: nn.Module, x: Tensor, y: Tensor, *, sizes: Sequence[float], methods: Sequence[str], **options: Any
) -> list[Row]:
    """Certified accuracy of every method at every perturbation size (paper, §2.2 and Figure 1).

    Args:
        net, x, y, methods: as :func:`glsk.verify.evaluate` takes them, and ``options`` for it (``num_classes``, ...).
        sizes: perturbation sizes in data units, at least two, ascending.

    Returns:
        One row a method and size: ``method``, ``eps``, ``certified`` (a share).

    Raises:
        ValueError: sizes that are too few or do not ascend; and what ``evaluate`` raises.
    """
    if len(sizes) < 2 or any(a >= b for a, b in pairwise(sizes)):
        raise ValueError(f"sizes: expected two or more that ascend, got {list(sizes)}")
    found = [evaluate(net, x, y, eps=size, methods=methods, attack_restarts=0, **options) for size in sizes]
    return [
        {"method": method, "eps": size, "certified": result.certified[method]}
        for method in found[0].certified
        for size, result in zip(sizes, found, strict=True)
    ]


def areas(rows: Sequence[Row]) -> dict[str, float]:
    """Method -> the area below its curve by the trapezoidal rule, over the range of sizes: a mean share in [0, 1]."""
    found = {}
    for method in dict.fromkeys(row["method"] for row in rows):
        eps, share = (torch.tensor([r[key] for r in rows if r["method"] == method]) for key in ("eps", "certified"))
        found[method] = float(torch.trapezoid(share, eps) / (eps[-1] - eps[0]))
    return found


def plot_tightness(rows: Sequence[Row]) -> "Figure":
    """A curve a method, its area in the legend, loosest first."""
    figure = new_figure(6, 4)
    ax = figure.subplots()
    for method, area in sorted(areas(rows).items(), key=lambda pair: pair[1]):
        curve = [(row["eps"], 100 * row["certified"]) for row in rows if row["method"] == method]
        ax.plot(*zip(*curve, strict=True), marker=".", label=f"{method} ({100 * area:.1f} %)")
    ax.set_xlabel("ε")
    ax.set_ylabel("certified, %")
    ax.grid(alpha=0.3)
    ax.legend(title="area", fontsize="small")
    return figure
