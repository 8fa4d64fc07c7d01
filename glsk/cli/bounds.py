"""``glsk bounds``."""

from typing import Annotated

import typer

from glsk.cli.errors import one_line_errors
from glsk.cli.loading import load
from glsk.cli.options import (
    Backend,
    Data,
    Dataset,
    Device,
    Dtype,
    Eps,
    Json,
    Method,
    Model,
    Threads,
    Weights,
    dtype_named,
)
from glsk.cli.output import show_json, show_tables


@one_line_errors()
def bounds(
    weights: Weights,
    index: Annotated[int, typer.Option(help="Which test image.", min=0)] = 0,
    method: Method = "CROWN",
    model: Model = None,
    dataset: Dataset = None,
    data: Data = None,
    eps: Eps = None,
    dtype: Dtype = "float64",
    backend: Backend = None,
    device: Device = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Bounds of one test image: its margins, and how tight each layer's bounds are.

    Certified means what it means for certify.
    """
    from glsk.device import check_device
    from glsk.verify.inspect import inspect_sample, sample_tables

    net, size, test = load(weights, model, dataset, data, eps, threads)
    place = check_device(device or "cpu")
    if index >= len(test.x_test):
        raise ValueError(f"--index: {test.name} has {len(test.x_test)} test images, got {index}")
    found = inspect_sample(
        net.to(place, dtype_named(dtype)),
        test.x_test[index].to(place, dtype_named(dtype)),
        int(test.y_test[index]),
        eps=size,
        method=method,
        num_classes=test.num_classes,
        backend=backend or "auto",
    )
    if as_json:
        show_json(found)
    else:
        show_tables(sample_tables(found))
