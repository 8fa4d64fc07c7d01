import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

import glsk
from glsk.errors import DataError
from glsk.models import build
from glsk.verify.attack import AttackSettings
from glsk.verify.images import verify_images
from glsk.verify.records import VerdictLog, read_lines
from glsk.verify.verdict_table import summary, verdict_table
from glsk.verify.verifier import VerifySettings

RUN = {"weights": "w", "eps": 0.1}


def record(index, status="unsat", stage="CROWN", seconds=0.5):
    return {"index": index, "status": status, "stage": stage, "seconds": seconds}


def test_a_cut_line_is_dropped_and_the_rest_goes_on(tmp_path):
    path = tmp_path / "verdicts.jsonl"
    with VerdictLog(path, RUN) as log:
        log.write(record(0))
        log.write(record(3))
    with open(path, "a") as file:
        file.write('{"index": 5, "sta')
    with VerdictLog(path, RUN, resume=True) as log:
        assert set(log.records) == {0, 3}
        log.write(record(5))
    assert [line.get("index") for line in read_lines(path)] == [None, 0, 3, 5]


def test_another_run_or_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "verdicts.jsonl"
    VerdictLog(path, RUN).close()
    with pytest.raises(ValueError, match="exists already"):
        VerdictLog(path, RUN)
    with pytest.raises(ValueError, match=r"its eps is 0.1, not 0.2"):
        VerdictLog(path, RUN | {"eps": 0.2}, resume=True)
    path.write_text(json.dumps(RUN) + "\nnonsense\n")
    with pytest.raises(DataError, match="line 2"):
        VerdictLog(path, RUN, resume=True)


SCRIPT = """
import sys, torch
from pathlib import Path
from glsk.models import build
from glsk.verify.attack import AttackSettings
from glsk.verify.images import verify_images
from glsk.verify.records import VerdictLog
from glsk.verify.verifier import VerifySettings
torch.set_num_threads(1)
net, x = build("cnn3", (1, 10, 10), 4, seed=2), torch.rand(12, 1, 10, 10, generator=torch.Generator().manual_seed(0))
y = net(x).argmax(1)
with VerdictLog(Path(sys.argv[1]), {"run": 1}, resume=True) as log:
    settings = VerifySettings(window=2)
    for found in verify_images(net, x, y, eps=0.01, log=log, num_classes=4, settings=settings):
        print(found["index"], flush=True)
"""


def test_a_killed_run_loses_no_verdict(tmp_path):
    path = tmp_path / "verdicts.jsonl"
    first = subprocess.Popen([sys.executable, "-c", SCRIPT, str(path)], stdout=subprocess.PIPE, text=True)
    seen = {int(first.stdout.readline()) for _ in range(3)}
    os.kill(first.pid, signal.SIGKILL)
    first.stdout.close()
    first.wait()
    kept = {line["index"] for line in read_lines(path)[1:]}
    assert seen <= kept
    again = subprocess.run([sys.executable, "-c", SCRIPT, str(path)], capture_output=True, text=True, check=True)
    new = {int(line) for line in again.stdout.split()}
    assert new.isdisjoint(kept)
    assert new | kept == set(range(12))
    assert sorted(line["index"] for line in read_lines(path)[1:]) == list(range(12))


def test_verdicts_of_images_agree_with_the_bounds_of_each(tmp_path):
    net = build("cnn3", (1, 10, 10), 4, seed=2)
    x = torch.rand(8, 1, 10, 10)
    attack = AttackSettings(steps=5, restarts=1)
    complete = VerifySettings(attack=attack)
    with torch.no_grad():
        y = net(x).argmax(1)
    y[0] = (y[0] + 1) % 4
    found = {
        r["index"]: r
        for r in verify_images(net, x, y, eps=0.003, num_classes=4, timeout=5, settings=VerifySettings(attack=attack))
    }
    assert found[0]["status"] == "sat"
    assert found[0]["stage"] == "natural"
    lower, _ = glsk.BoundedModule(net.double(), (1, 10, 10)).compute_bounds(
        x.double(), eps=0.003, clip=(0.0, 1.0), C=glsk.margins(y, 4)
    )
    for i in (lower > 1e-6).all(1).nonzero()[:, 0].tolist():
        assert found[i]["status"] == "unsat"
        assert found[i]["stage"] in ("IBP", "CROWN")
    stopped = list(verify_images(net, x, y, eps=0.01, num_classes=4, settings=replace(complete, complete=False)))
    assert any(r["status"] == "unknown" for r in stopped)
    assert {r["status"] for r in stopped} <= {"sat", "unsat", "unknown"}
    assert all(r["stage"] == "alpha-CROWN" for r in stopped if r["status"] == "unknown")


def test_summary_counts_every_image_once():
    records = [
        record(0, "unsat", "IBP"),
        record(1, "unsat", "branch and bound", 3.0),
        record(2, "sat", "natural", 0.0),
        record(3, "sat", "attack", 0.1),
        record(4, "timeout", "branch and bound", 60.0),
    ]
    found = summary(records)
    assert found["natural"] == pytest.approx(0.8)
    assert found["adversarial"] == pytest.approx(0.6)
    assert found["certified"] == {"IBP": 0.2, "CROWN": 0.2, "alpha-CROWN": 0.2}
    assert found["complete"] == pytest.approx(0.4)
    assert found["undecided"] == pytest.approx(0.2)
    assert found["median_seconds"] == pytest.approx(0.3)
    assert verdict_table(records).row_count == 8
