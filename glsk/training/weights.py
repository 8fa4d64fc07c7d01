"""Weights as safetensors files that say which network they belong to."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import nn

from glsk import models
from glsk.errors import CheckpointError
from glsk.training.atomic import write_bytes
from glsk.training.checkpoint import read_safetensors


@dataclass(frozen=True)
class Description:
    """What a weights file says about itself.

    Attributes:
        model: name in :data:`glsk.models.MODELS`.
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


def save_weights(path: Path, net: nn.Module, description: Description) -> None:
    """Write the state dict of ``net`` atomically. Raises OSError."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}
    write_bytes(path, save(tensors, {"glsk_weights": json.dumps(asdict(description))}))


def load_weights(path: Path, model: str | None = None) -> tuple[nn.Sequential, Description | None]:
    """The network of a weights file, of a checkpoint, or of any safetensors state dict.

    Args:
        path: the file.
        model: needed if the file does not name its network, which then is taken to be for MNIST, or for 3x32x32 images
            if its first convolution has three channels.

    Raises:
        CheckpointError: naming the file, if it is missing, corrupt, or does not fit the network.
        ValueError: if the model is unknown, or neither given nor named by the file.
    """
    tensors, metadata = read_safetensors(path)
    description = None
    if "glsk_checkpoint" in metadata:
        tensors = {n.removeprefix("weights/"): v for n, v in tensors.items() if n.startswith("weights/")}
        description = _describe(json.loads(metadata["glsk_checkpoint"])["network"])
    elif "glsk_weights" in metadata:
        description = _describe(json.loads(metadata["glsk_weights"]))
    model = model or (description.model if description else None)
    if model is None:
        raise ValueError(f"{path}: does not say which network it belongs to; name it with --model")
    mean, std = tensors.get("0.mean"), tensors.get("0.std")
    first = tensors.get("1.weight" if mean is not None else "0.weight")
    colour = first is not None and first.dim() == 4 and first.shape[1] == 3
    net = models.build(
        model,
        description.input_shape if description else (3, 32, 32) if colour else (1, 28, 28),
        description.num_classes if description else 10,
        mean=None if mean is None else mean.tolist(),
        std=None if std is None else std.tolist(),
    )
    try:
        net.load_state_dict(tensors)
    except RuntimeError as error:
        first_line = str(error).splitlines()[-1].strip()
        raise CheckpointError(f"{path}: does not fit {model} ({first_line})") from error
    return net.eval(), description


def _describe(values: dict[str, Any]) -> Description:
    return Description(**{**values, "input_shape": tuple(values["input_shape"])})
