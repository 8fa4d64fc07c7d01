"""``glsk verify``."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glsk.cli.errors import one_line_errors, show
from glsk.cli.loading import load_in_file_order
from glsk.cli.options import Backend, Device, Json, Model, Seed, Threads, Weights, require_cpu, set_threads
from glsk.cli.output import show_json

if TYPE_CHECKING:
    from glsk import BoundedModule
    from glsk.verify import Property, Verdict

EXIT_CODES = {"unsat": 0, "sat": 1, "timeout": 3, "unknown": 4}
"""Of the verdicts; 2 is bad input."""


@one_line_errors()
def verify(
    network: Weights,
    spec: Annotated[Path, typer.Argument(help="What is unsafe, in VNN-LIB.")],
    timeout: Annotated[float, typer.Option(help="Seconds after which to give up.", min=0)] = 120.0,
    model: Model = None,
    seed: Seed = 0,
    backend: Backend = None,
    device: Device = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Prove that a network is safe, or find an input at which it is not.

    Prints "unsat": safe, proved for exact arithmetic. "sat": unsafe, with a counterexample as VNN-COMP writes it.
    "timeout": not decided in time. "unknown": not decided, and more time would not help. The exit code is 0, 1, 3 and
    4 in this order; 2 is bad input.
    """
    from glsk import BoundedModule
    from glsk.formats import format_counterexample, read_vnnlib

    require_cpu(device, "verification")
    set_threads(threads)
    found = load_in_file_order(network, model)
    properties = [found.arrange(one) for one in read_vnnlib(spec)]
    bounded = BoundedModule(found.network, found.input_shape)
    verdict, seconds = _decide(bounded, properties, timeout, seed, backend or "auto")
    status = verdict.status if verdict is not None else "unsat"
    x = y = None
    if verdict is not None and verdict.counterexample is not None:
        point = verdict.counterexample[None]
        x, y = found.to_file(point)[0], found.network.double()(point)[0].detach()
    if as_json:
        values = {"result": status, "seconds": seconds, "stage": verdict.stage if verdict is not None else None}
        show_json(values | ({} if x is None or y is None else {"x": x.tolist(), "y": y.tolist()}))
    else:
        show(status + "\n" + ("" if x is None or y is None else format_counterexample(x, y) + "\n"))
    if EXIT_CODES[status]:
        raise typer.Exit(EXIT_CODES[status])


def _decide(
    bounded: "BoundedModule", properties: "list[Property]", timeout: float, seed: int, backend: str
) -> "tuple[Verdict | None, float]":
    """The first verdict that is "sat", else the last that is not "unsat", else the last; None of no property."""
    from glsk.verify import verify as decide

    began = time.monotonic()
    worst: Verdict | None = None
    for one in properties:
        left = max(timeout - (time.monotonic() - began), 1e-3)
        verdict = decide(bounded, one, timeout=left, seed=seed, backend=backend)
        if worst is None or verdict.status == "sat" or worst.status == "unsat":
            worst = verdict
        if verdict.status == "sat":
            break
    return worst, time.monotonic() - began
