"""``metrics.jsonl`` of a run, read by a person's tools and by a run that goes on."""

import json

from fuzz import scratch
from glsk.training.metrics import Metrics, read_metrics


def seeds() -> list[bytes]:
    """Some records, one of them cut short."""
    records = [{"step": step, "stage": "pgpe", "loss": 0.5, "times": [1, None, True]} for step in range(3)]
    lines = [json.dumps(record).encode() + b"\n" for record in records]
    return [b"".join(lines), b"".join(lines)[:-5], b"\n" + lines[0], b'{"step": 3, "stage": "evaluation"}\n']


def check(data: bytes) -> None:
    """ValueError naming the file and the line; a run that goes on keeps exactly the good ones."""
    path = scratch.folder() / "metrics.jsonl"
    path.write_bytes(data)
    with scratch.refusing(ValueError, naming=path):
        for record in read_metrics(path):
            assert type(record["step"]) is int
            assert isinstance(record["stage"], str)
    going_on = Metrics(scratch.folder(), 1 << 40, tensorboard=False)
    going_on.close()
    kept = read_metrics(path)
    whole = data.count(b"\n")
    assert len(kept) <= whole - going_on.dropped
    assert all(record["step"] <= 1 << 40 for record in kept)
