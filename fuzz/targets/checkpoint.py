"""Checkpoints: raw files, and any text of what they hold with a digest that fits it; then the run's place in them."""

import json
from functools import cache

import torch
from safetensors.torch import save

from fuzz import scratch
from glsk import CheckpointError
from glsk.models import build
from glsk.training import checkpoint, position
from glsk.training.config import Config
from glsk.training.weights import load_weights

_SHAPE = (1, 8, 8)
_NETWORK = {"model": "cnn3", "dataset": "set", "input_shape": list(_SHAPE), "num_classes": 3, "eps": 0.1}


def seeds() -> list[bytes]:
    """A checkpoint, and what one says."""
    meta = {"format": 2, "step": 5, "config": Config().to_dict(), "network": _NETWORK, "data": "00", "phase": 1,
            "index": 2, "evaluated": True, "estimator": {}, "results": {}}  # fmt: skip
    short = {**meta, "config": {}}
    texts = [json.dumps(meta).encode(), json.dumps(short).encode(), b'{"format": 2, "step": 5}']
    return [*(b"\1" + text for text in texts), b"\0" + _saying(texts[1])]


def check(data: bytes) -> None:
    """CheckpointError, or a whole network and a place in a run of two phases."""
    way, content = scratch.split(data, 2)
    path = scratch.folder() / "step-000000005.safetensors"
    path.write_bytes(_saying(content) if way == 1 else content)
    with scratch.refusing(CheckpointError, naming=path):
        found = checkpoint.latest(scratch.folder())
        net = build("cnn3", _SHAPE, 3)
        place = position.unpack(found, net, phases=2)
        assert place.step == found.step
    with scratch.refusing(CheckpointError, naming=path):
        load_weights(path, "cnn3")


@cache
def _tensors():
    """Of a run that has only its weights and its random state."""
    net = build("cnn3", _SHAPE, 3)
    weights = {f"weights/{name}": value.contiguous() for name, value in net.state_dict().items()}
    return {**weights, "rng/torch": torch.get_rng_state()}


def _saying(text: bytes) -> bytes:
    said = text.decode("utf-8", "replace")
    return save(_tensors(), {"glsk_checkpoint": said, "sha256": checkpoint._digest(_tensors(), said)})
