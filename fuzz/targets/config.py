"""``config.json`` of a run: whole files, and single settings in a file that is sound."""

import json

from fuzz import scratch
from glsk import CheckpointError
from glsk.training.config import Config
from glsk.training.run_folder import CONFIG, read_config, write_config


def seeds() -> list[bytes]:
    """A whole file, and settings of every type."""
    values = {
        "eps": 0.1,
        "model": "cnn5",
        "phases": [{"milestones": [1, 2]}],
        "eval_methods": ["IBP"],
        "augment": True,
        "seed": 7,
    }
    whole = json.dumps(Config().to_dict()).encode()
    parts = [json.dumps({name: value}).encode() for name, value in values.items()]
    return [b"\0" + whole, *(b"\1" + part for part in (*parts, b'{"device": "cuda:1", "threads": 1e999}'))]


def check(data: bytes) -> None:
    """CheckpointError, or settings that are written back as they were read."""
    way, content = scratch.split(data, 2)
    path = scratch.folder() / CONFIG
    if way == 1:
        whole = json.dumps(Config().to_dict()).encode()
        content = whole[:-1] + b"," + content.lstrip()[1:]  # of a name given twice the last counts
    path.write_bytes(content)
    with scratch.refusing(CheckpointError, naming=path):
        found = read_config(scratch.folder())
        write_config(scratch.folder(), found)
        assert read_config(scratch.folder()) == found
