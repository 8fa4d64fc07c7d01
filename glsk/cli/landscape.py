"""``glsk landscape``."""

from pathlib import Path
from typing import Annotated

import typer

from glsk.cli.errors import one_line_errors, show
from glsk.cli.loading import load
from glsk.cli.options import (
    Backend,
    Data,
    Dataset,
    Device,
    Eps,
    Limit,
    Methods,
    Model,
    Picture,
    Seed,
    Threads,
    Weights,
    listed,
    numbers,
)


@one_line_errors()
def landscape(
    weights: Weights,
    out: Picture = Path("landscape.png"),
    model: Model = None,
    dataset: Dataset = None,
    data: Data = None,
    method: Methods = None,
    direction: Annotated[str, typer.Option(help="The relaxation along whose gradient to look.")] = "CROWN",
    eps: Eps = None,
    reach: Annotated[float, typer.Option(help="How far to look either way, in the space of weights.")] = 0.01,
    points: Annotated[int, typer.Option(help="Of the line; odd.")] = 21,
    stdev: Annotated[list[str] | None, typer.Option(help="Smoothing, a,b,c; default 1e-4,1e-3.")] = None,
    popsize: Annotated[list[str] | None, typer.Option(help="Networks a mean is of, a,b,c; default 128.")] = None,
    limit: Limit = 64,
    seed: Seed = 0,
    backend: Backend = None,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """The robust loss along its gradient, as it is and smoothed by Gaussian noise of the weights, with error bands.

    On the first training images (test images of a set that has no others); --method defaults to IBP,CROWN-IBP,CROWN.
    """
    from glsk import BoundedModule
    from glsk.analysis.landscape import LandscapeSettings, plot_landscape
    from glsk.analysis.landscape import landscape as measure
    from glsk.analysis.rows import check_picture, write_figure, write_rows
    from glsk.device import check_device
    from glsk.objectives import MiniBatch

    check_picture(out)
    place = check_device(device or "cpu")
    sizes = numbers("--popsize", popsize or ["128"])
    settings = LandscapeSettings(
        methods=tuple(listed(method)) or LandscapeSettings.methods,
        direction=direction,
        radius=reach,
        points=points,
        stdevs=tuple(numbers("--stdev", stdev)) if stdev else LandscapeSettings.stdevs,
        popsizes=tuple(int(n) if n == int(n) else -1 for n in sizes),
        seed=seed,
    )
    net, size, found = load(weights, model, dataset, data, eps, threads)
    trained = len(found.x_train) > 0
    x, y = (found.x_train, found.y_train) if trained else (found.x_test, found.y_test)
    batch = MiniBatch(x[: limit or None].to(place), y[: limit or None].to(place), size)
    bounded = BoundedModule(net.float().to(place), found.input_shape)
    rows = measure(bounded, batch, found.num_classes, settings, backend=backend or "auto")
    write_rows(out.with_suffix(".csv"), rows)
    write_figure(out, plot_landscape(rows))
    show(f"{out}, {out.with_suffix('.csv')}: {len(batch.x)} {'training' if trained else 'test'} images, eps {size:g}\n")
