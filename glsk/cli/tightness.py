"""``glsk tightness``."""

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
    Dtype,
    Json,
    Limit,
    Methods,
    Model,
    Picture,
    Threads,
    Weights,
    dtype_named,
    listed,
    numbers,
)
from glsk.cli.output import show_json


@one_line_errors()
def tightness(
    weights: Weights,
    out: Picture = Path("tightness.png"),
    model: Model = None,
    dataset: Dataset = None,
    data: Data = None,
    method: Methods = None,
    eps: Annotated[list[str] | None, typer.Option(help="Sizes, a,b,c; default 11 from 0 to twice the file's.")] = None,
    limit: Limit = 200,
    dtype: Dtype = "float64",
    backend: Backend = None,
    device: Device = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Certified accuracy of every relaxation over the perturbation size, and the area below it: how tight it is."""
    import glsk
    from glsk.analysis.rows import check_picture, write_figure, write_rows
    from glsk.analysis.tightness import areas, plot_tightness
    from glsk.analysis.tightness import tightness as measure

    check_picture(out)
    net, size, test = load(weights, model, dataset, data, None, threads)
    sizes = sorted(set(numbers("--eps", eps))) if eps else [size * i / 5 for i in range(11)]
    rows = measure(
        net,
        test.x_test[: limit or None],
        test.y_test[: limit or None],
        sizes=sizes,
        methods=listed(method) or glsk.methods(),
        num_classes=test.num_classes,
        backend=backend or "auto",
        device=device or "cpu",
        dtype=dtype_named(dtype),
    )
    write_rows(out.with_suffix(".csv"), rows)
    write_figure(out, plot_tightness(rows))
    found = dict(sorted(areas(rows).items(), key=lambda pair: pair[1]))
    if as_json:
        show_json(found)
    else:
        show("".join(f"{name:<12} {100 * area:6.2f} %\n" for name, area in found.items()))
