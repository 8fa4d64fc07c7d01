"""State dicts of torch.save: the restricted unpickler, and what comes out of it."""

import io

import torch

from fuzz import scratch
from glsk import CheckpointError
from glsk.formats import read_state_dict
from glsk.models import build


def seeds() -> list[bytes]:
    """As a zip archive and in the older format, whole and inside another dict."""
    state = build("cnn3", (1, 8, 8), 3).state_dict()
    return [_saved(content, zipped) for content in (state, {"state_dict": state}) for zipped in (True, False)]


def check(data: bytes) -> None:
    """CheckpointError, or dense tensors."""
    path = scratch.folder() / "fuzz.pt"
    path.write_bytes(data)
    with scratch.refusing(CheckpointError, naming=path):
        found = read_state_dict(path)
        assert all(isinstance(value, torch.Tensor) and value.layout == torch.strided for value in found.values())


def _saved(content: object, zipped: bool) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()
