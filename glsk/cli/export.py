"""``glsk export``."""

from pathlib import Path
from typing import Annotated

import typer

from glsk.cli.errors import one_line_errors, show
from glsk.cli.loading import load
from glsk.cli.options import Data, Dataset, Eps, Limit, Model, Weights


@one_line_errors()
def export(
    weights: Weights,
    out: Annotated[Path, typer.Argument(help="Folder for net.onnx, a .vnnlib an image and instances.csv; it is made.")],
    model: Model = None,
    dataset: Dataset = None,
    data: Data = None,
    eps: Eps = None,
    limit: Limit = 10,
    first: Annotated[int, typer.Option(help="The first test image.", min=0)] = 0,
    timeout: Annotated[float, typer.Option(help="Seconds an instance, for instances.csv.", min=0)] = 120.0,
) -> None:
    """Write a network as ONNX, and that it is robust at test images as VNN-LIB: an instance for any verifier.

    The files are those of VNN-COMP: instances.csv has a line "net.onnx,image.vnnlib,timeout" an image.
    """
    from glsk.formats import format_vnnlib, onnx_bytes
    from glsk.training.atomic import write_bytes, write_text
    from glsk.verify import margin_property

    net, size, test = load(weights, model, dataset, data, eps, None)
    last = len(test.x_test) if not limit else min(first + limit, len(test.x_test))
    if first >= last:
        raise ValueError(f"--first: {test.name} has {len(test.x_test)} test images, got {first}")
    write_bytes(out / "net.onnx", onnx_bytes(net, test.input_shape))
    lines = []
    for i in range(first, last):
        label = int(test.y_test[i])
        found = margin_property(test.x_test[i], label, size, (0.0, 1.0), test.num_classes)
        name = f"{test.name}-{i}-eps-{size:g}.vnnlib"
        says = f"{test.name}, test image {i}, eps {size:g}: unsafe if another class is as large as {label}."
        write_text(out / name, format_vnnlib(found, says))
        lines.append(f"net.onnx,{name},{timeout:g}\n")
    write_text(out / "instances.csv", "".join(lines))
    show(f"{out}: net.onnx and {len(lines)} images\n")
