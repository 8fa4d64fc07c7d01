"""Weights as safetensors files that say which network they belong to, with a digest of all they hold."""

import json
import logging
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

import glsk
from glsk import models
from glsk.arguments import printable
from glsk.errors import CheckpointError
from glsk.formats.state_dict import read_state_dict
from glsk.own_network import is_reference
from glsk.training import checkpoint
from glsk.training.atomic import write_bytes
from glsk.training.description import Description, check_fit, describe, sizes_of
from glsk.training.digest import digest

__all__ = ["Description", "load_weights", "save_weights"]

_LOG = logging.getLogger(__name__)
_NO_DIGEST = "glsk: note: %s: has no digest, so damage to it would go unnoticed"
_PICKLES = (".pt", ".pth", ".pkl", ".bin", ".ckpt")


def save_weights(path: Path, net: nn.Module, description: Description) -> None:
    """Write the state dict of ``net`` atomically, with a SHA-256 of it and of ``description``.

    Raises:
        OSError: naming the file (disk full, no permission, ...).
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}
    values = {**asdict(description), "glsk_version": glsk.__version__}
    # One entry: safetensors writes several in any order, and the same weights shall be the same bytes.
    entry = json.dumps({**values, "sha256": digest(tensors, json.dumps(values, sort_keys=True))})
    try:
        write_bytes(path, save(tensors, {"glsk_weights": entry}))
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error  # a full disk names no file


def load_weights(path: Path, model: str | None = None) -> tuple[nn.Sequential, Description | None]:
    """The network of a weights file, of a checkpoint, or of any state dict; float32, in eval mode.

    Every number of the header is held to the tensors' shapes before anything is built from it. A file with neither a
    digest nor a version of glsk (a plain state dict, or one that glsk wrote before it had digests) is loaded with a
    note in the log: damage to it would go unnoticed.

    Args:
        path: the file: safetensors, or a state dict that ``torch.save`` wrote, of which only tensors are read and
            nothing is executed.
        model: needed if the file does not name its network, which then is taken to be for MNIST, or for 3x32x32 images
            if its first convolution has three channels; and if its network is ``file.py:function``, which is executed
            on the caller's word alone.

    Raises:
        CheckpointError: naming the file, if it is missing, of another format, corrupt, does not match its digest, holds
            NaN, infinity or what float32 cannot hold, or does not fit the network.
        ValueError: if the model is unknown, or neither given nor named by the file.
    """
    tensors, description = _read(path)
    given, model = model is not None, model or (description.model if description else None)
    if model is None:
        raise ValueError(f"{path}: does not say which network it belongs to; name it with --model")
    own = is_reference(model)
    if own and not given:
        raise ValueError(f"{path}: its network is {model!r:.200}, a program; if you trust it, name it with --model")
    if not own and model.lower() not in models.MODELS:
        raise ValueError(f"model: unknown {model!r}; known: {', '.join(models.MODELS)}, file.py:function")
    tensors = {name: _float32(value, f"{path}: {printable(name)}") for name, value in tensors.items()}
    if own:
        shape, num_classes = sizes_of(tensors, description)
    else:
        shape, num_classes = check_fit(path, tensors, model.lower(), description)
    mean, std = tensors.get("0.mean"), tensors.get("0.std")
    try:
        net = models.build(
            model,
            shape,
            num_classes,
            mean=None if mean is None else mean.tolist(),
            std=None if std is None else std.tolist(),
        )
        net.load_state_dict(tensors)
    except (ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: does not fit {model} ({str(error).splitlines()[-1].strip()})") from error
    return net.eval(), description


def _read(path: Path) -> tuple[dict[str, Tensor], Description | None]:
    """The tensors of the network, vouched for by their digest, and what the file says of them."""
    if _format(path) == "torch":
        _LOG.warning(_NO_DIGEST, path)
        return read_state_dict(path), None
    tensors, metadata = checkpoint.read_safetensors(path)
    if "glsk_checkpoint" in metadata:
        found = checkpoint.read(path)
        return found.group("weights"), describe(path, found.meta.get("network"))
    if "glsk_weights" not in metadata:
        _LOG.warning(_NO_DIGEST, path)
        return tensors, None
    try:
        values = json.loads(metadata["glsk_weights"])
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: corrupt (its description is not JSON: {printable(error)})") from error
    if isinstance(values, dict) and ("sha256" in values or "glsk_version" in values):
        expected = values.pop("sha256", None)
        if digest(tensors, json.dumps(values, sort_keys=True)) != expected:
            raise CheckpointError(f"{path}: corrupt (its content does not match its digest)")
    else:
        _LOG.warning(_NO_DIGEST, path)
    return tensors, describe(path, values)


def _format(path: Path) -> str:
    """ "torch" or "safetensors", by the name and the first bytes. Raises CheckpointError."""
    if path.is_dir():
        inside = path / "weights.safetensors"
        hint = f"give {inside}" if inside.is_file() else "give the .safetensors file in it"
        raise CheckpointError(f"{path}: a folder, not a weights file; {hint}")
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    suffix = path.suffix.lower()
    try:
        with open(path, "rb") as file:
            start = file.read(8)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from error
    if suffix in _PICKLES or (start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05"):
        return "torch"
    if suffix == ".onnx":
        raise CheckpointError(f"{path}: an ONNX file, not weights; use glsk.formats.read_onnx")
    if suffix == ".npz" or start[:4] == b"PK\x03\x04":
        raise CheckpointError(f"{path}: a zip archive, not weights; name it .pt if it is a PyTorch file")
    return "safetensors"


def _float32(value: Tensor, source: str) -> Tensor:
    """Exactly the same numbers in float32, or an error: rounded weights are another network."""
    if not value.is_floating_point():
        raise CheckpointError(f"{source} is {value.dtype}, expected floating-point weights")
    single = value.to(torch.float32)
    if not bool(single.isfinite().all()):
        raise CheckpointError(f"{source} holds NaN or infinity (or numbers beyond float32)")
    if not bool((single.to(value.dtype) == value).all()):
        raise CheckpointError(f"{source} is {value.dtype} and would be rounded to float32; round and save it yourself")
    return single
