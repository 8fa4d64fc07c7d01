"""``glsk train``."""

from pathlib import Path
from typing import Annotated

import typer

from glsk.cli.errors import one_line_errors, show
from glsk.cli.options import Backend, Data, Device, Threads, radius
from glsk.cli.output import show_tables
from glsk.training.stopping import deferred, ends_on_signals


@one_line_errors("interrupted; a training run goes on with --resume")
@ends_on_signals
def train(
    preset: Annotated[str, typer.Option(help="Settings to start from; an unknown name lists them all.")] = "quick",
    out: Annotated[Path | None, typer.Option(help="Folder of the run; default runs/<preset>.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    data: Data = None,
    dataset: Annotated[str | None, typer.Option(help="mnist-5k, mnist, cifar10 or an .npz file.")] = None,
    model: Annotated[str | None, typer.Option(help="cnn3 or cnn5.")] = None,
    method: Annotated[str | None, typer.Option(help="IBP, HBox, CROWN-IBP or CROWN (= DeepPoly).")] = None,
    algorithm: Annotated[str | None, typer.Option(help="pgpe, grad or none (warm start only).")] = None,
    eps: Annotated[str | None, typer.Option(help="Perturbation size, such as 0.1 or 2/255.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs after the warm start.")] = None,
    warm_epochs: Annotated[int | None, typer.Option(help="Epochs of PGD warm start.")] = None,
    max_steps: Annotated[int | None, typer.Option(help="Stop after so many steps; 0 for no limit.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples a step.")] = None,
    popsize: Annotated[int | None, typer.Option(help="Members of the population (even).")] = None,
    stdev: Annotated[float | None, typer.Option(help="Initial standard deviation of the members.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything random.")] = None,
    init: Annotated[str | None, typer.Option(help="Weights to start from.")] = None,
    actors: Annotated[int | None, typer.Option(help="Ray actors that share the population.")] = None,
    backend: Backend = None,
    device: Device = None,
    threads: Threads = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="Any setting, name=value; may be repeated.", metavar="NAME=VALUE")
    ] = None,
) -> None:
    """Train a network: PGD warm start, then PGPE (or the gradient) on the robust loss; then print the accuracies."""
    with deferred():  # a module that is stopped while it is imported answers in its own way
        from glsk.training.config import parse_setting
        from glsk.training.loop import read_config
        from glsk.training.loop import train as run
        from glsk.training.presets import preset as settings
        from glsk.verify import evaluation_table

    values = {
        "dataset": dataset,
        "model": model,
        "method": method,
        "algorithm": algorithm,
        "epochs": epochs,
        "warm_epochs": warm_epochs,
        "max_steps": max_steps,
        "batch_size": batch_size,
        "popsize": popsize,
        "stdev_init": stdev,
        "lr": lr,
        "seed": seed,
        "init": init,
        "actors": actors,
        "backend": backend,
        "device": device,
        "threads": threads,
    }
    given = {name: value for name, value in values.items() if value is not None}
    if eps is not None:
        given["eps"] = radius(eps)
    given.update(parse_setting(text) for text in setting or [])
    if data is not None and data.endswith(".npz") and not resume:
        given.setdefault("dataset", data)  # found again by a resumed run
    folder = out or Path("runs") / preset
    config = (read_config(folder) if resume else settings(preset)).override(**given)
    results = run(config, folder, data=data, resume=resume)
    title = f"{config.model} on {config.dataset}, eps {config.eps:g}"
    if config.algorithm != "none":
        title += f", trained with {config.method}"
    show_tables([evaluation_table(results, title)])
    show(f"weights: {folder / 'weights.safetensors'}\n")
