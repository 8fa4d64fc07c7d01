import json

import pytest

from glsk.training.metrics import Metrics, read_metrics


def write(folder, steps, start=0, **settings):
    metrics = Metrics(folder, start, tensorboard=settings.get("tensorboard", False))
    for step in steps:
        metrics.write({"step": step, "stage": "pgpe", "loss": 1 / step})
    metrics.close()


def steps(folder):
    return [record["step"] for record in read_metrics(folder / "metrics.jsonl")]


def test_one_json_line_a_record(tmp_path):
    write(tmp_path, [1, 2, 3])
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[2]) == {"step": 3, "stage": "pgpe", "loss": 1 / 3}
    assert steps(tmp_path) == [1, 2, 3]


def test_resuming_drops_what_came_after_the_checkpoint(tmp_path):
    write(tmp_path, range(1, 8))
    write(tmp_path, [5, 6], start=4)
    assert steps(tmp_path) == [1, 2, 3, 4, 5, 6]


def test_a_line_cut_short_by_a_kill_is_dropped(tmp_path):
    write(tmp_path, [1, 2])
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + b'{"step": 3, "stage": "pg')
    assert steps(tmp_path) == [1, 2]
    write(tmp_path, [3], start=2)
    assert steps(tmp_path) == [1, 2, 3]
    assert len(path.read_text().splitlines()) == 3


def test_a_fresh_run_starts_an_empty_file(tmp_path):
    write(tmp_path, [1, 2])
    write(tmp_path, [])
    assert steps(tmp_path) == []


def test_every_record_is_on_disk_at_once(tmp_path):
    metrics = Metrics(tmp_path, tensorboard=False)
    metrics.write({"step": 1, "stage": "pgpe", "loss": 0.5})
    assert steps(tmp_path) == [1]
    metrics.close()


def test_tensorboard_gets_the_numbers(tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    write(tmp_path, [1, 2, 3], tensorboard=True)
    events = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert events.Tags()["scalars"] == ["pgpe/loss"]
    assert [(e.step, round(e.value, 3)) for e in events.Scalars("pgpe/loss")] == [(1, 1.0), (2, 0.5), (3, 0.333)]
