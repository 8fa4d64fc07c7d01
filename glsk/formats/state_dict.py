"""State dicts that ``torch.save`` wrote, of which nothing is executed."""

import pickle
import warnings
from pathlib import Path

import torch
from torch import Tensor

from glsk.arguments import printable
from glsk.errors import CheckpointError


def read_state_dict(path: Path | str) -> dict[str, Tensor]:
    """The tensors of a state dict, or of a dict that holds one as "state_dict", on the CPU.

    PyTorch's restricted unpickler reads it: a file that asks for anything but tensors and plain containers is refused.

    Raises:
        CheckpointError: naming the file, if it is missing, damaged, not made of tensors alone, or no state dict.
    """
    source = Path(path)
    try:
        with warnings.catch_warnings(action="ignore"):  # of other pickle protocols: it reads them, or it fails
            found = torch.load(source, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        why = "it is damaged, or holds more than tensors, which could be a program"
        raise CheckpointError(
            f"{source}: {why}; save net.state_dict(), or use safetensors ({_first_line(error)})"
        ) from error
    except Exception as error:  # the unpickler raises of every kind on damaged bytes
        why = f" ({_first_line(error)})" if isinstance(error, OSError | RuntimeError) else ""
        raise CheckpointError(f"{source}: not a PyTorch file, or damaged{why}") from error
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if not isinstance(found, dict) or not found:
        raise CheckpointError(f"{source}: holds {type(found).__name__}, expected a state dict")
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, Tensor) or value.layout != torch.strided:
            raise CheckpointError(f"{source}: {printable(name)}: expected a dense tensor, got {type(value).__name__}")
    return dict(found)


def _first_line(error: Exception) -> str:
    return printable((str(error).splitlines() or [type(error).__name__])[0])
