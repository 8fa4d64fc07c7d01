"""The robust loss along a line through a network's weights, as it is and smoothed by Gaussian noise."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector

import glsk
from glsk import bounds
from glsk.analysis.rows import Row, new_figure
from glsk.objectives import MiniBatch
from glsk.objectives.robust import Robust
from glsk.seeds import stream

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CONFIDENCE = 1.96
"""Standard errors on either side of a mean: 95 % of a normal distribution."""


@dataclass(frozen=True)
class LandscapeSettings:
    """Where the loss is computed.

    Attributes:
        methods: relaxations, whose robust loss is looked at.
        direction: the relaxation whose loss's gradient at the weights, normalised to length 1, is the line's direction.
        radius: the line reaches from ``-radius`` to ``radius`` (lengths in the space of weights).
        points: of the line, odd, so that the weights themselves are one.
        stdevs: standard deviations σ of the smoothing.
        popsizes: how many perturbed networks a smoothed loss is the mean of.
        seed: of the perturbations, which differ from point to point, as from step to step of PGPE.

    Raises:
        ValueError: naming the setting.
    """

    methods: tuple[str, ...] = ("IBP", "CROWN-IBP", "CROWN")
    direction: str = "CROWN"
    radius: float = 0.01
    points: int = 21
    stdevs: tuple[float, ...] = (1e-4, 1e-3)
    popsizes: tuple[int, ...] = (128,)
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.methods:
            raise ValueError("methods: there is none")
        for name in (*self.methods, self.direction):
            glsk.canonical_method(name)
        if not bounds.is_differentiable(glsk.canonical_method(self.direction)):
            raise ValueError(f"direction: {self.direction} has no gradient")
        if not 0 < self.radius < float("inf"):
            raise ValueError(f"radius: expected a positive number, got {self.radius}")
        if self.points < 3 or self.points % 2 == 0:
            raise ValueError(f"points: expected an odd number from 3, got {self.points}")
        if any(not 0 < stdev < float("inf") for stdev in self.stdevs):
            raise ValueError(f"stdevs: expected positive numbers, got {self.stdevs}")
        if not self.popsizes or min(self.popsizes) < 2:
            raise ValueError(f"popsizes: expected whole numbers >= 2, got {self.popsizes}")


def landscape(
    bounded: "glsk.BoundedModule",
    batch: MiniBatch,
    num_classes: int,
    settings: LandscapeSettings | None = None,
    **engine: Any,
) -> list[Row]:
    """The losses of a line of networks (paper, Figures 5 to 8).

    Of every point the smoothed loss is one evaluation of a population, the largest of ``popsizes``; a smaller one is
    its first members.

    Args:
        bounded: the network, on the batch's device and in its dtype.
        batch: what the loss is computed on.
        num_classes: K.
        settings: see there.
        **engine: ``backend``, ``clip`` and the like, as :class:`glsk.objectives.Objective` takes them.

    Returns:
        One row a method, σ (0: not smoothed), population size (0 with σ = 0) and point ``t``: ``loss``, and
        ``standard_error`` of the mean (0 with σ = 0).

    Raises:
        ValueError: settings, or what the objective refuses.
        NumericalError: a loss is not finite.
    """
    own = settings or LandscapeSettings()
    centre = parameters_to_vector(bounded.net.parameters()).detach()
    direction = _direction(Robust(bounded, num_classes, method=own.direction, **engine), batch, centre)
    ts = torch.linspace(-own.radius, own.radius, own.points, dtype=torch.float64)
    ts[own.points // 2] = 0.0
    line = centre + ts.to(centre)[:, None] * direction
    rows: list[Row] = []
    for name in dict.fromkeys(map(glsk.canonical_method, own.methods)):
        loss = Robust(bounded, num_classes, method=name, **engine)
        with torch.no_grad():
            losses = loss(batch, line).double().tolist()
            rows += [_row(name, 0.0, 0, t, value, 0.0) for t, value in zip(ts.tolist(), losses, strict=True)]
            for stdev in own.stdevs:
                for i, t in enumerate(ts.tolist()):
                    sample = loss(batch, line[i] + stdev * _noise(own, i, centre)).double()
                    rows += [_mean(name, stdev, size, t, sample[:size]) for size in own.popsizes]
    return sorted(rows, key=lambda row: (row["method"], row["sigma"], row["popsize"], row["t"]))


def _direction(objective: Robust, batch: MiniBatch, centre: Tensor) -> Tensor:
    """The gradient of the loss at the weights, of length 1."""
    weights = centre[None].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(objective(batch, weights).sum(), weights)
    length = gradient.norm()
    if not bool(length > 0):
        raise ValueError(f"direction: the gradient of {objective.name} is {float(length)} at these weights")
    return gradient[0] / length


def _noise(settings: LandscapeSettings, point: int, centre: Tensor) -> Tensor:
    """Standard normal, one row a member; the same for every method and σ."""
    generator = stream(settings.seed, "landscape", point)
    return torch.randn(max(settings.popsizes), centre.numel(), generator=generator).to(centre)


def _mean(name: str, stdev: float, size: int, t: float, sample: Tensor) -> Row:
    return _row(name, stdev, size, t, float(sample.mean()), float(sample.std() / size**0.5))


def _row(name: str, stdev: float, size: int, t: float, loss: float, error: float) -> Row:
    return {"method": name, "sigma": stdev, "popsize": size, "t": t, "loss": loss, "standard_error": error}


def plot_landscape(rows: Sequence[Row]) -> "Figure":
    """A panel a σ and population size; a curve a method, divided by its loss at t = 0, in bands of 95 % confidence."""
    panels = sorted({(row["sigma"], row["popsize"]) for row in rows})
    figure = new_figure(1 + 3.2 * min(len(panels), 3), 3 * -(-len(panels) // 3))
    axes = figure.subplots(-(-len(panels) // 3), min(len(panels), 3), sharex=True, squeeze=False).flat
    at_zero = {row["method"]: row["loss"] for row in rows if row["sigma"] == 0 and row["t"] == 0}
    for ax, (stdev, size) in zip(axes, panels, strict=False):
        for i, (method, unit) in enumerate(at_zero.items()):
            curve = [r for r in rows if (r["method"], r["sigma"], r["popsize"]) == (method, stdev, size)]
            t = [r["t"] for r in curve]
            ax.plot(t, [r["loss"] / unit for r in curve], color=f"C{i}", label=method, linewidth=1)
            low, high = (
                [(r["loss"] + sign * CONFIDENCE * r["standard_error"]) / unit for r in curve] for sign in (-1, 1)
            )
            ax.fill_between(t, low, high, color=f"C{i}", alpha=0.2, linewidth=0)
        ax.set_title("the loss itself" if not stdev else f"σ = {stdev:g}, {size} networks", fontsize="small")
        ax.grid(alpha=0.3)
    figure.supxlabel("distance along the gradient")
    figure.supylabel("loss / loss at 0")
    figure.axes[0].legend(fontsize="small")
    for ax in figure.axes[len(panels) :]:
        ax.remove()
    return figure
