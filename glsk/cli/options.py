"""Options that more than one command has, each declared once, and how their values are read."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import torch

Weights = Annotated[
    Path, typer.Argument(help="Weights or checkpoint (safetensors, or a PyTorch state dict), or an ONNX network.")
]
Model = Annotated[str | None, typer.Option(help="cnn3, cnn5 or file.py:function, if the file does not say.")]
Dataset = Annotated[str | None, typer.Option(help="Default: the one the file names.")]
Data = Annotated[str | None, typer.Option("--data", help="Folder with the data files, or an .npz. Else $GLSK_DATA.")]
Eps = Annotated[str | None, typer.Option(help="Default: the one the file names, else 0.1.")]
Backend = Annotated[str | None, typer.Option(help="auto, reference, cpu, triton or cuda.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, or one of several GPUs: cuda:1.")]
Threads = Annotated[int | None, typer.Option(help="CPU threads; 0 leaves PyTorch's default.", min=0, max=4096)]
Dtype = Annotated[
    str,
    typer.Option(help="float64 allows for its rounding; float32 is an estimate (rounding may certify wrongly)."),
]
Seed = Annotated[int, typer.Option(help="Of everything random.")]
Methods = Annotated[list[str] | None, typer.Option("--method", help="May be repeated, or a,b,c; default all.")]
Method = Annotated[str, typer.Option(help="IBP, HBox, CROWN-IBP, CROWN (= DeepPoly), DeepZ or alpha-CROWN.")]
Limit = Annotated[int, typer.Option("--limit", "-n", help="Test images; 0 for all.", min=0)]
Runs = Annotated[list[Path], typer.Argument(help="Folders of runs, or of series of them (seed-0, seed-1, ...).")]
Picture = Annotated[Path, typer.Option("--out", help="The picture, .png, .pdf or .svg; its numbers in a .csv beside.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


def listed(values: list[str] | None) -> list[str]:
    """The values of an option that is repeated, holds several between commas, or both."""
    return [part.strip() for value in values or [] for part in value.split(",") if part.strip()]


def numbers(name: str, values: list[str]) -> list[float]:
    """The values of a list option as numbers, each such as 0.1 or 2/255. Raises ValueError naming ``name``."""
    return [radius(text, name) for text in listed(values)]


def require_cpu(device: str | None, what: str) -> None:
    """Raises ValueError where the value of --device is unknown, or none that ``what`` can run on."""
    from glsk.device import check_device

    if device is not None and check_device(device).type != "cpu":
        raise ValueError(f"device: {what} is computed in float64 on the CPU, not on {device!r}; leave --device out")


def set_threads(threads: int | None) -> None:
    """The value of --threads becomes PyTorch's."""
    import torch

    if threads:
        torch.set_num_threads(threads)


def radius(text: str, name: str = "--eps") -> float:
    """A perturbation size such as 0.1 or 2/255. Raises ValueError naming the option."""
    numerator, slash, denominator = text.partition("/")
    try:
        value = float(numerator) / (float(denominator) if slash else 1.0)
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(f"{name}: cannot read {text!r} ({error}); give a number such as 0.1 or 2/255") from error
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name}: must be finite and >= 0, got {text!r}")
    return value


def dtype_named(name: str) -> "torch.dtype":
    """float32 or float64. Raises ValueError."""
    import torch

    known = {"float32": torch.float32, "float64": torch.float64}
    if name not in known:
        raise ValueError(f"--dtype: unknown {name!r}; known: {', '.join(known)}")
    return known[name]
