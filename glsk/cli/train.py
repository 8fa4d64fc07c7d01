"""``glsk train``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glsk.cli.errors import one_line_errors, show
from glsk.cli.options import Backend, Data, Device, Threads, radius
from glsk.cli.output import show_tables
from glsk.errors import MissingPackageError
from glsk.stopping import deferred, ends_on_signals

if TYPE_CHECKING:
    from glsk.training import Config

_LAST = "Of the last phase: "


@one_line_errors("interrupted; a training run goes on with --resume")
@ends_on_signals
def train(
    preset: Annotated[str, typer.Option(help="Settings to start from; an unknown name lists them.")] = "quick",
    file: Annotated[Path | None, typer.Option("--config", help="Settings to start from, a run's config.json.")] = None,
    method: Annotated[str | None, typer.Option(help="Objective: a relaxation, PGD, SABR, STAPS, ...")] = None,
    estimator: Annotated[str | None, typer.Option(help="Of its gradient: grad, rgs, pgpe or pgpe-cv.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; default runs/<preset>...")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    data: Data = None,
    dataset: Annotated[str | None, typer.Option(help="mnist-5k, mnist, cifar10 or an .npz file.")] = None,
    model: Annotated[str | None, typer.Option(help="cnn3, cnn5 or file.py:function.")] = None,
    eps: Annotated[str | None, typer.Option(help="Perturbation size, such as 0.1 or 2/255.")] = None,
    train_eps: Annotated[str | None, typer.Option(help=f"{_LAST}perturbation size, if not --eps.")] = None,
    epochs: Annotated[int | None, typer.Option(help=f"{_LAST}epochs.")] = None,
    warm_epochs: Annotated[int | None, typer.Option(help="Epochs of the phase warm-start.")] = None,
    max_steps: Annotated[int | None, typer.Option(help=f"{_LAST}stop after so many steps; 0 for no limit.")] = None,
    batch_size: Annotated[int | None, typer.Option(help=f"{_LAST}samples a step.")] = None,
    popsize: Annotated[int | None, typer.Option(help=f"{_LAST}members of the population (even).")] = None,
    stdev: Annotated[float | None, typer.Option(help=f"{_LAST}initial standard deviation of the members.")] = None,
    lr: Annotated[float | None, typer.Option(help=f"{_LAST}learning rate.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything random.")] = None,
    seeds: Annotated[
        str | None, typer.Option(help="Several runs, such as 0,1,2, in folders <out>/seed-0, ...", metavar="N,N,...")
    ] = None,
    init: Annotated[str | None, typer.Option(help="Weights to start from.")] = None,
    actors: Annotated[int | None, typer.Option(help="Ray actors that share the population.")] = None,
    ray_address: Annotated[str | None, typer.Option(help="Ray cluster of the actors; else $RAY_ADDRESS.")] = None,
    backend: Backend = None,
    device: Device = None,
    threads: Threads = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Any setting of the run or of its last phase, name=value, or of another, phase.name=value; repeat it.",
            metavar="[PHASE.]NAME=VALUE",
        ),
    ] = None,
) -> None:
    """Train a network, by default a PGD warm start and then PGPE on the robust loss; then print the accuracies."""
    with deferred():  # a module that is stopped while it is imported answers in its own way
        from glsk.analysis.board import add_curves
        from glsk.training.runs import Start, train_seeds
        from glsk.verify import evaluation_table

    values = {
        "dataset": dataset,
        "model": model,
        "eps": None if eps is None else radius(eps),
        "seed": seed,
        "init": init,
        "actors": actors,
        "ray_address": ray_address,
        "backend": backend,
        "device": device,
        "threads": threads,
        "epochs": epochs,
        "warm-start.epochs": warm_epochs,
        "max_steps": max_steps,
        "batch_size": batch_size,
        "popsize": popsize,
        "stdev_init": stdev,
        "lr": lr,
    }
    given: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
    start = Start(preset, file, method, estimator)
    folder = out or Path("runs") / start.name

    def settings(resumed: Path | None) -> "Config":
        config = start.config(resumed)
        more = {**given, **({} if train_eps is None else {f"{config.main.name}.eps": radius(train_eps)})}
        if data is not None and data.endswith(".npz") and resumed is None:
            more.setdefault("dataset", data)  # found again by a resumed run
        return config.override(**{**more, **dict(config.read(text) for text in setting or [])})

    if seeds is not None and seed is not None:
        raise ValueError("--seeds: leave out --seed")
    for at, config, results in train_seeds(folder, seeds, settings, data=data, resume=resume):
        title = f"{config.model} on {config.dataset}, eps {config.eps:g}, {config.main.objective}"
        title += f" by {config.main.estimator}" + (f", seed {config.seed}" if seeds else "")
        show_tables([evaluation_table(results, title)])
        show(f"weights: {at / 'weights.safetensors'}\n")
        if config.tensorboard:
            try:
                add_curves(at)
            except MissingPackageError as missing:
                show(f"{missing}\n")
