"""One process at a time in a run's folder."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import glsk
from glsk.training import lock
from glsk.training.batches import Batches
from glsk.training.lock import locked
from tests.training.runs import config, outcome, run, write_data

HOLD = """
import sys
from pathlib import Path
from glsk.training.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data") / "tiny.npz")


@pytest.mark.parametrize("resume", [False, True])
def test_a_second_start_is_refused_and_the_first_goes_on(data, tmp_path, monkeypatch, resume):
    settings, out = config(data, warm_epochs=0, epochs=1), tmp_path / "out"
    run(settings, tmp_path / "alone")
    original, refused = Batches.batch, []

    def batch(self, step):
        if not refused:
            refused.append(step)
            with pytest.raises(ValueError, match=f"process {os.getpid()} on {socket.gethostname()}, started 20"):
                run(settings, out, resume=resume)
        return original(self, step)

    monkeypatch.setattr(Batches, "batch", batch)
    run(settings, out)
    assert refused
    assert outcome(out) == outcome(tmp_path / "alone")
    assert not (out / lock.NAME).exists()


def test_a_process_that_is_killed_leaves_the_folder_free(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(glsk.__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout.readline() == b"held\n"
        with (
            pytest.raises(ValueError, match=f"process {process.pid} on .* is running in this folder"),
            locked(tmp_path),
        ):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (tmp_path / lock.NAME).exists()
        with locked(tmp_path) as holds:
            assert holds
    finally:
        process.kill()
        process.communicate()


def test_a_folder_made_for_nothing_is_removed(tmp_path):
    with locked(tmp_path / "new"):
        assert (tmp_path / "new").is_dir()
    assert not (tmp_path / "new").exists()
    with locked(tmp_path):
        pass
    assert tmp_path.exists()


def test_a_file_where_the_folder_should_be_is_named(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(OSError, match="out"), locked(tmp_path / "out"):
        pass


def test_a_lock_file_that_says_nothing_yet_still_refuses(tmp_path):
    with locked(tmp_path):
        (tmp_path / lock.NAME).write_text("")
        with pytest.raises(ValueError, match="another process"), locked(tmp_path):
            pass


def test_a_lock_on_a_file_that_is_no_longer_there_does_not_count(tmp_path, monkeypatch):
    original, calls = lock.fcntl.flock, []

    def flock(descriptor, operation):
        calls.append(1)
        if len(calls) == 1:  # whoever held it has just ended
            (tmp_path / lock.NAME).unlink()
        original(descriptor, operation)

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    with locked(tmp_path):
        with pytest.raises(ValueError, match=f"process {os.getpid()}"), locked(tmp_path):
            pass
        assert len(calls) == 3


def test_without_locks_it_says_so(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    with locked(tmp_path) as holds:
        assert not holds
