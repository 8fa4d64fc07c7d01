"""The command line: ``glsk train``, ``glsk certify``, ``glsk bounds`` and ``glsk info``."""

import json
import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from glsk.cli_errors import Group, one_line_errors, say, show
from glsk.training.stopping import deferred, ends_on_signals

app = typer.Typer(
    cls=Group,
    help="Certified training of ReLU networks with PGPE and tight convex relaxations.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_Data = Annotated[str | None, typer.Option("--data", help="Folder with the data files, or an .npz. Else $GLSK_DATA.")]
_Backend = Annotated[str | None, typer.Option(help="auto, reference, cpu, triton or cuda.")]
_Device = Annotated[str | None, typer.Option(help="cpu, cuda, or one of several GPUs: cuda:1.")]
_Threads = Annotated[int | None, typer.Option(help="CPU threads; 0 leaves PyTorch's default.", min=0, max=4096)]
_Dtype = Annotated[
    str,
    typer.Option(help="float64 decides far above its rounding; float32 is an estimate (rounding may certify wrongly)."),
]


@app.command()
@one_line_errors("interrupted; a training run goes on with --resume")
@ends_on_signals
def train(
    preset: Annotated[str, typer.Option(help="Settings to start from; an unknown name lists them all.")] = "quick",
    out: Annotated[Path | None, typer.Option(help="Folder of the run; default runs/<preset>.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    data: _Data = None,
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
    backend: _Backend = None,
    device: _Device = None,
    threads: _Threads = None,
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
        given["eps"] = _radius(eps)
    given.update(parse_setting(text) for text in setting or [])
    if data is not None and data.endswith(".npz") and not resume:
        given.setdefault("dataset", data)  # found again by a resumed run
    folder = out or Path("runs") / preset
    config = (read_config(folder) if resume else settings(preset)).override(**given)
    results = run(config, folder, data=data, resume=resume)
    title = f"{config.model} on {config.dataset}, eps {config.eps:g}"
    if config.algorithm != "none":
        title += f", trained with {config.method}"
    _print([evaluation_table(results, title)])
    show(f"weights: {folder / 'weights.safetensors'}\n")


@app.command()
@one_line_errors()
def certify(
    weights: Annotated[Path, typer.Argument(help="Weights or checkpoint, safetensors.")],
    model: Annotated[str | None, typer.Option(help="cnn3 or cnn5, if the file does not say.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Default: the one the file names.")] = None,
    data: _Data = None,
    method: Annotated[list[str] | None, typer.Option(help="May be repeated; default all.")] = None,
    eps: Annotated[str | None, typer.Option(help="Default: the one the file names, else 0.1.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", help="Test images; 0 for all.", min=0)] = 0,
    attack_steps: Annotated[int, typer.Option(help="PGD steps.", min=0)] = 40,
    restarts: Annotated[int, typer.Option(help="PGD restarts; 0 for no attack.", min=0)] = 3,
    batch_size: Annotated[int, typer.Option(help="Samples at a time.", min=1)] = 256,
    dtype: _Dtype = "float64",
    seed: Annotated[int, typer.Option(help="Of the attack.")] = 0,
    backend: _Backend = None,
    device: _Device = None,
    threads: _Threads = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Natural, PGD-adversarial and certified accuracy of a network on test images.

    Certified means: the lower bounds of all margins on the eps-ball, in float64, exceed 1e-9 of the largest logit (or
    1e-9). That is about the network in exact arithmetic; rounding is left a wide margin, but is not bounded rigorously.
    """
    import glsk
    from glsk.verify import evaluate, evaluation_table

    net, radius, test = _load(weights, model, dataset, data, eps, threads)
    result = evaluate(
        net,
        test.x_test[: limit or None],
        test.y_test[: limit or None],
        eps=radius,
        methods=method or glsk.methods(),
        num_classes=test.num_classes,
        attack_steps=attack_steps,
        attack_restarts=restarts,
        batch_size=batch_size,
        backend=backend or "auto",
        device=device or "cpu",
        dtype=_dtype(dtype),
        seed=seed,
    )
    if as_json:
        show(json.dumps(result.to_dict(), indent=1) + "\n")
    else:
        title = f"{weights}, {result.samples} images of {test.name}, eps {radius:g}"
        _print([evaluation_table({"": result}, title)])
    if not restarts:
        say("note: without restarts no adversarial accuracy was measured")
    if result.contradictions:
        say(
            f"warning: {result.contradictions} samples are certified although PGD breaks them; their margins are "
            "0 but for rounding, decide in float64 (the default)"
        )


@app.command()
@one_line_errors()
def bounds(
    weights: Annotated[Path, typer.Argument(help="Weights or checkpoint, safetensors.")],
    index: Annotated[int, typer.Option(help="Which test image.", min=0)] = 0,
    method: Annotated[str, typer.Option(help="IBP, HBox, CROWN-IBP or CROWN (= DeepPoly).")] = "CROWN",
    model: Annotated[str | None, typer.Option(help="cnn3 or cnn5, if the file does not say.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Default: the one the file names.")] = None,
    data: _Data = None,
    eps: Annotated[str | None, typer.Option(help="Default: the one the file names, else 0.1.")] = None,
    dtype: _Dtype = "float64",
    backend: _Backend = None,
    threads: _Threads = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Bounds of one test image: its margins, and how tight each layer's bounds are.

    Certified means what it means for certify.
    """
    from glsk.verify.inspect import inspect_sample, sample_tables

    net, radius, test = _load(weights, model, dataset, data, eps, threads)
    if index >= len(test.x_test):
        raise ValueError(f"--index: {test.name} has {len(test.x_test)} test images, got {index}")
    found = inspect_sample(
        net.to(_dtype(dtype)),
        test.x_test[index].to(_dtype(dtype)),
        int(test.y_test[index]),
        eps=radius,
        method=method,
        num_classes=test.num_classes,
        backend=backend or "auto",
    )
    if as_json:
        show(json.dumps(found, indent=1) + "\n")
    else:
        _print(sample_tables(found))


@app.command()
@one_line_errors()
def info() -> None:
    """Versions, devices, and which backends are here, and why not."""
    from glsk.info import report

    show(f"{report()}\n")


def _load(
    weights: Path, model: str | None, dataset: str | None, data: str | None, eps: str | None, threads: int | None
) -> tuple[Any, float, Any]:
    """The network, the perturbation size and the data set of a weights file."""
    import torch

    from glsk.data import NAMES, load
    from glsk.training.weights import load_weights

    radius = None if eps is None else _radius(eps)
    if threads:
        torch.set_num_threads(threads)
    net, description = load_weights(weights, model)
    named = description.dataset if description is not None and description.dataset in NAMES else "mnist-5k"
    test = load(dataset or named, data)
    if radius is None:
        radius = description.eps if description is not None else 0.1
    expected = description.input_shape if description is not None else None
    if expected is not None and expected != test.input_shape:
        raise ValueError(f"{weights}: takes images {expected}, {test.name} has {test.input_shape}")
    outputs = [layer.out_features for layer in net if isinstance(layer, torch.nn.Linear)][-1]
    largest = int(test.y_test.max())
    if largest >= outputs:
        raise ValueError(f"{weights}: tells {outputs} classes apart, {test.name} has label {largest}")
    return net, radius, replace(test, num_classes=outputs)


def _radius(text: str) -> float:
    """A perturbation size such as 0.1 or 2/255. Raises ValueError."""
    numerator, slash, denominator = text.partition("/")
    try:
        radius = float(numerator) / (float(denominator) if slash else 1.0)
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(f"--eps: cannot read {text!r} ({error}); give a number such as 0.1 or 2/255") from error
    if not (math.isfinite(radius) and radius >= 0):
        raise ValueError(f"--eps: must be finite and >= 0, got {text!r}")
    return radius


def _print(tables: Iterable[Any]) -> None:
    """Rich tables on standard output, where a closed pipe is an exception and not rich's own exit."""
    from rich.console import Console

    console = Console()
    with console.capture() as captured:
        for table in tables:
            console.print(table)
    show(captured.get())


def _dtype(name: str) -> Any:
    import torch

    if name not in ("float32", "float64"):
        raise ValueError(f"--dtype: unknown {name!r}; known: float32, float64")
    return getattr(torch, name)


if __name__ == "__main__":
    app()
