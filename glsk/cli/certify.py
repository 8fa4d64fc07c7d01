"""``glsk certify``."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    require_cpu,
)
from glsk.cli.output import show_json, show_tables

if TYPE_CHECKING:
    from torch import nn

    from glsk.data import Dataset as TestSet


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
    verdicts: Annotated[
        Path | None, typer.Option(help="Write a JSON line an image: index, status, stage, seconds.")
    ] = None,
    complete: Annotated[bool, typer.Option("--complete", help="Decide every image, by branch and bound.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds an image, of --complete.")] = 60.0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the file of --verdicts.")] = False,
    seed: Seed = 0,
    backend: Backend = None,
    device: Device = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Natural, PGD-adversarial and certified accuracy of a network on test images.

    Certified means, in float64: in real arithmetic all margins of the network as stored are above 0 on the eps-ball;
    what rounding can have added to their lower bounds is bounded and taken off first.

    With --complete or --verdicts every image goes through interval arithmetic, CROWN, an attack and alpha-CROWN until
    one decides it, with --complete through branch and bound as well. --verdicts keeps what is found; a run that was
    killed goes on with --resume.
    """
    import glsk
    from glsk.verify import evaluate, evaluation_table

    if resume and verdicts is None:
        raise ValueError("--resume: name the file to go on with (--verdicts FILE)")
    if complete or verdicts is not None:
        require_cpu(device, "a verdict of every image")
    net, size, test = load(weights, model, dataset, data, eps, threads)
    if complete or verdicts is not None:
        if method:
            raise ValueError("--method: verdicts go through IBP, CROWN and alpha-CROWN; leave it out")
        search = {"complete": complete, "timeout": timeout, "attack_steps": attack_steps, "restarts": restarts}
        found = _decide(net, test, size, limit, verdicts, resume, seed, backend or "auto", search)
        _show(found, f"{weights}, {len(found)} images of {test.name}, eps {size:g}", complete, as_json)
        return
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


def _decide(
    net: "nn.Module",
    test: "TestSet",
    eps: float,
    limit: int,
    path: Path | None,
    resume: bool,
    seed: int,
    backend: str,
    search: Mapping[str, Any],
) -> list[Mapping[str, Any]]:
    """A verdict of every image, on a log if one is named."""
    from contextlib import ExitStack

    from glsk.training.digest import digest
    from glsk.verify import AttackSettings, VerifySettings
    from glsk.verify.images import verify_images
    from glsk.verify.records import VerdictLog
    from glsk.verify.verdict_progress import shown

    x, y = test.x_test[: limit or None], test.y_test[: limit or None]
    attack = AttackSettings(search["attack_steps"], search["restarts"])
    settings = VerifySettings(attack=attack, complete=search["complete"])
    weights = digest(net.state_dict(), str(net))
    run = {"weights": weights, "dataset": test.name, "samples": len(x), "eps": eps, "seed": seed, **search}
    with ExitStack() as stack:
        log = None if path is None else stack.enter_context(VerdictLog(path, run, resume))
        records: dict[int, Mapping[str, Any]] = dict(log.records) if log is not None else {}
        new = verify_images(
            net, x, y, eps=eps, log=log, num_classes=test.num_classes, timeout=search["timeout"], seed=seed,
            backend=backend, settings=settings,
        )  # fmt: skip
        try:
            for record in shown(new, total=len(x), done=len(records)):
                records[record["index"]] = record
        except KeyboardInterrupt:
            more = f"; go on with --verdicts {path} --resume" if path is not None else ""
            raise KeyboardInterrupt(f"interrupted after {len(records)} of {len(x)} images{more}") from None
    return [records[i] for i in sorted(records)]


def _show(records: Iterable[Mapping[str, Any]], title: str, complete: bool, as_json: bool) -> None:
    from glsk.verify.verdict_table import summary, verdict_table

    if as_json:
        show_json(summary(records))
    else:
        show_tables([verdict_table(records, title, complete)])
