"""Weights files: raw safetensors, headers of the right length, and descriptions with a digest that fits them."""

import json
from functools import cache

from safetensors.torch import save

from fuzz import scratch
from glsk import CheckpointError
from glsk.models import build
from glsk.training.digest import digest
from glsk.training.weights import load_weights

_SHAPE = (1, 8, 8)


def seeds() -> list[bytes]:
    """A file of glsk, a plain state dict, and what they say about themselves."""
    plain = save(_tensors())
    described = _described(json.dumps(_DESCRIPTION).encode())
    headers = [raw[8 : 8 + int.from_bytes(raw[:8], "little")] for raw in (plain, described)]
    values = [json.dumps({**_DESCRIPTION, **change}).encode() for change in ({}, {"model": "cnn5"}, {"eps": 10**30})]
    return [b"\0" + plain, b"\0" + described, *(b"\1" + raw for raw in headers), *(b"\2" + raw for raw in values)]


def check(data: bytes) -> None:
    """CheckpointError, or a network whose numbers are finite."""
    way, content = scratch.split(data, 3)
    path = scratch.folder() / "fuzz.safetensors"
    if way == 0:
        path.write_bytes(content)
    elif way == 1:
        body = b"".join(value.numpy().tobytes() for _, value in sorted(_tensors().items()))
        path.write_bytes(len(content).to_bytes(8, "little") + content + body)
    else:
        path.write_bytes(_described(content))
    with scratch.refusing(CheckpointError, naming=path):
        net, _ = load_weights(path, "cnn3")
        assert all(bool(value.isfinite().all()) for value in net.state_dict().values())


_DESCRIPTION = {"model": "cnn3", "dataset": "set", "input_shape": list(_SHAPE), "num_classes": 3, "eps": 0.1}


@cache
def _tensors():
    """Of a small network, by name."""
    return {name: value.contiguous() for name, value in build("cnn3", _SHAPE, 3).state_dict().items()}


def _described(text: bytes) -> bytes:
    """A file that says ``text`` of itself, with a digest if that is the JSON of an object."""
    said = text.decode("utf-8", "replace")
    try:
        values = json.loads(said)
        if isinstance(values, dict):
            values.pop("sha256", None)
            said = json.dumps({**values, "sha256": digest(_tensors(), json.dumps(values, sort_keys=True))})
    except (ValueError, RecursionError):
        pass
    return save(_tensors(), {"glsk_weights": said})
