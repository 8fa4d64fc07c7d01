"""``glsk certify``."""

from typing import Annotated

import typer

from glsk.cli.errors import one_line_errors, say
from glsk.cli.loading import load
from glsk.cli.options import (
    Backend,
    Data,
    Dataset,
    Device,
    Dtype,
    Eps,
    Json,
    Limit,
    Methods,
    Model,
    Seed,
    Threads,
    Weights,
    dtype_named,
    listed,
)
from glsk.cli.output import show_json, show_tables


@one_line_errors()
def certify(
    weights: Weights,
    model: Model = None,
    dataset: Dataset = None,
    data: Data = None,
    method: Methods = None,
    eps: Eps = None,
    limit: Limit = 0,
    attack_steps: Annotated[int, typer.Option(help="PGD steps.", min=0)] = 40,
    restarts: Annotated[int, typer.Option(help="PGD restarts; 0 for no attack.", min=0)] = 3,
    batch_size: Annotated[int, typer.Option(help="Samples at a time.", min=1)] = 256,
    dtype: Dtype = "float64",
    seed: Seed = 0,
    backend: Backend = None,
    device: Device = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Natural, PGD-adversarial and certified accuracy of a network on test images.

    Certified means, in float64: in real arithmetic all margins of the network as stored are above 0 on the eps-ball;
    what rounding can have added to their lower bounds is bounded and taken off first.
    """
    import glsk
    from glsk.verify import evaluate, evaluation_table

    net, size, test = load(weights, model, dataset, data, eps, threads)
    result = evaluate(
        net,
        test.x_test[: limit or None],
        test.y_test[: limit or None],
        eps=size,
        methods=listed(method) or glsk.methods(),
        num_classes=test.num_classes,
        attack_steps=attack_steps,
        attack_restarts=restarts,
        batch_size=batch_size,
        backend=backend or "auto",
        device=device or "cpu",
        dtype=dtype_named(dtype),
        seed=seed,
    )
    if as_json:
        show_json(result.to_dict())
    else:
        title = f"{weights}, {result.samples} images of {test.name}, eps {size:g}"
        show_tables([evaluation_table({"": result}, title)])
    if not restarts:
        say("note: without restarts no adversarial accuracy was measured")
    if result.contradictions:
        say(
            f"warning: {result.contradictions} samples are certified although PGD breaks them; their margins are "
            "0 but for rounding, decide in float64 (the default)"
        )
