"""What a weights file says about itself, and whether its tensors agree."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from glsk import models
from glsk.arguments import printable
from glsk.errors import CheckpointError
from glsk.own_network import is_reference

_LARGEST_SIDE = 1 << 12  # pixels; keeps the products of shapes far from overflow


@dataclass(frozen=True)
class Description:
    """What a weights file says about itself.

    Attributes:
        model: a name of :data:`glsk.models.MODELS`, or ``file.py:function``.
        dataset: the set it was trained on.
        input_shape: (C, H, W).
        num_classes: K.
        eps: perturbation size it was trained for.
    """

    model: str
    dataset: str
    input_shape: tuple[int, ...]
    num_classes: int
    eps: float


def describe(path: Path, values: Any) -> Description:
    """The description in a file's header, every value of its type and range. Raises CheckpointError naming the file."""
    wanted = [field.name for field in fields(Description)]
    missing = wanted if not isinstance(values, dict) else [name for name in wanted if name not in values]
    if missing:
        raise CheckpointError(f"{path}: corrupt (its description lacks {', '.join(missing)})")
    model, shape, classes, eps = (values[name] for name in ("model", "input_shape", "num_classes", "eps"))
    checks = {
        "model": isinstance(model, str) and (model.lower() in models.MODELS or is_reference(model)),
        "dataset": isinstance(values["dataset"], str),
        "input_shape": isinstance(shape, list)
        and len(shape) == 3
        and all(type(n) is int and 1 <= n <= _LARGEST_SIDE for n in shape),
        "num_classes": type(classes) is int and classes >= 2,
        "eps": type(eps) in (int, float) and math.isfinite(eps) and eps >= 0,
    }
    for name, good in checks.items():
        if not good:
            raise CheckpointError(f"{path}: corrupt (its description says {name} {str(values[name])[:60]!r})")
    return Description(values["model"], values["dataset"], tuple(shape), classes, float(eps))


def check_fit(
    path: Path, tensors: Mapping[str, Tensor], model: str, description: Description | None
) -> tuple[tuple[int, ...], int]:
    """(C, H, W) and K of a network that has exactly these tensors; nothing of its size is allocated to find out.

    Raises:
        CheckpointError: naming the file, if the network has other tensors.
    """
    head = "0.mean" in tensors
    shape, num_classes = sizes_of(tensors, description)
    biases = [value for name, value in tensors.items() if name.endswith(".bias")]
    outputs = {int(value.numel()) for value in biases}  # K is one of these, whatever the order of the names
    if num_classes not in outputs:
        raise CheckpointError(f"{path}: does not fit {model} (no layer with the {num_classes} outputs of its classes)")
    try:
        with torch.device("meta"):
            layers = models.MODELS[model](shape, num_classes)
            expected = nn.Sequential(*([nn.Identity()] if head else []), *layers).state_dict()
    except (ValueError, RuntimeError, ZeroDivisionError) as error:
        raise CheckpointError(f"{path}: does not fit {model} ({str(error).splitlines()[0]})") from error
    sizes = {name: tuple(value.shape) for name, value in expected.items()}
    if head:
        sizes |= {"0.mean": (shape[0],), "0.std": (shape[0],)}
    for name in sorted(sizes.keys() | tensors.keys()):
        has = tuple(tensors[name].shape) if name in tensors else None
        if has != sizes.get(name):
            raise CheckpointError(
                f"{path}: does not fit {model} ({printable(name)}: {_say(has)}, expected {_say(sizes.get(name))})"
            )
    return shape, num_classes


def sizes_of(tensors: Mapping[str, Tensor], description: Description | None) -> tuple[tuple[int, ...], int]:
    """(C, H, W) and K as the file describes them; else MNIST's (CIFAR's of three channels), and the last layer's."""
    if description is not None:
        return description.input_shape, description.num_classes
    first = next((value for name, value in tensors.items() if name in ("0.weight", "1.weight")), None)
    colour = first is not None and first.dim() == 4 and first.shape[1] == 3
    return (3, 32, 32) if colour else (1, 28, 28), _outputs(tensors)


def _outputs(tensors: Mapping[str, Tensor]) -> int:
    """K by the tensors alone: the outputs of the last layer."""
    last = max((int(n.split(".")[0]) for n in tensors if n.split(".")[0].isdecimal()), default=-1)
    bias = tensors.get(f"{last}.bias", tensors.get(f"{last}.weight"))
    return -1 if bias is None or bias.dim() == 0 else len(bias)


def _say(shape: tuple[int, ...] | None) -> str:
    return "none" if shape is None else str(list(shape))
