"""Files are whole or not there, and whatever cannot be written is named."""

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import glsk
from glsk.training import atomic
from glsk.training.atomic import remove_strays, write_bytes
from glsk.training.metrics import Metrics
from tests.training.runs import config, run, write_data


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data") / "tiny.npz")


def test_the_folder_is_synced_after_the_rename(tmp_path, monkeypatch):
    done, replace, fsync = [], os.replace, os.fsync

    def recorded(name, original):
        def call(*arguments):
            done.append((name, os.path.isdir(arguments[0]) or name == "replace"))
            return original(*arguments)

        return call

    monkeypatch.setattr(os, "replace", recorded("replace", replace))
    monkeypatch.setattr(os, "fsync", recorded("fsync", fsync))
    write_bytes(tmp_path / "a", b"1")
    assert done == [("fsync", False), ("replace", True), ("fsync", True)]


def test_a_file_system_that_cannot_sync_folders_will_do(tmp_path, monkeypatch):
    original = os.fsync

    def fsync(descriptor):
        if os.path.isdir(descriptor):
            raise OSError(errno.EINVAL, "Invalid argument")
        original(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_bytes(tmp_path / "a", b"1")
    assert (tmp_path / "a").read_bytes() == b"1"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO])
def test_an_error_without_a_name_gets_one(tmp_path, monkeypatch, number):
    (tmp_path / "a").write_bytes(b"before")

    def fsync(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match=os.strerror(number)) as error:
        write_bytes(tmp_path / "a", b"after")
    assert error.value.errno == number
    assert error.value.filename == str(tmp_path / "a")
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"before"


def test_a_folder_in_the_place_of_the_file_is_named(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(IsADirectoryError) as error:
        write_bytes(tmp_path / "a", b"")
    assert error.value.filename == str(tmp_path / "a")
    assert os.listdir(tmp_path) == ["a"]


def test_a_parent_that_is_a_file_is_named(tmp_path):
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(OSError, match=r"/a/b'"):
        write_bytes(tmp_path / "a" / "b" / "c", b"")


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "step-000000000", "warm-start.saf", "results.json"])
def test_a_disk_that_is_full_names_the_file_of_the_run(data, tmp_path, monkeypatch, name):
    original = os.fsync

    def fsync(descriptor):
        if name in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOSPC, "No space left on device")
        original(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match=r"No space left on device: .*/out/") as error:
        run(config(data, epochs=0), tmp_path / "out")
    assert Path(error.value.filename).name.startswith(name)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.name.endswith(".tmp")]


def test_a_line_of_the_metrics_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    metrics = Metrics(tmp_path, tensorboard=False)
    metrics._file.close()
    metrics._file = open("/dev/full", "w")  # noqa: SIM115
    with pytest.raises(OSError, match=r"No space left on device: .*metrics\.jsonl"):
        metrics.write({"step": 1, "stage": "pgpe"})
    with pytest.raises(OSError, match=r"No space left on device: .*metrics\.jsonl"):
        metrics.close()


def test_a_file_that_grows_too_large_is_named(data, tmp_path):
    settings = config(data, epochs=1, warm_epochs=1)
    script = f"""
import resource, sys
from glsk.training import Config
from glsk.training.loop import train
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
try:
    train(Config.from_dict({settings.to_dict()!r}), {str(tmp_path / "out")!r})
except OSError as error:
    print(error)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(glsk.__file__).parents[1])}
    ended = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    assert "File too large" in ended.stdout
    assert f"{tmp_path}/out/checkpoints/step-000000000.safetensors" in ended.stdout
    assert len(ended.stdout.splitlines()) == 1
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 2000


OURS = [".config.json.123.tmp", ".step-000000003.safetensors.1.tmp", ".metrics.jsonl.99999.tmp"]
OTHERS = ["config.json.123.tmp", ".config.json.tmp", ".config.json.12a.tmp", ".a.1.tmp.old", "x.tmp", ".123.tmp"]


def test_only_temporary_files_of_ours_are_removed(tmp_path):
    for name in OURS + OTHERS:
        (tmp_path / name).write_bytes(b"")
    (tmp_path / ".folder.1.tmp").mkdir()
    remove_strays(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted([*OTHERS, ".folder.1.tmp"])
    remove_strays(tmp_path / "none")


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_begins_by_removing_what_a_killed_one_left(data, tmp_path, resume):
    settings, out = config(data, epochs=0, warm_epochs=1), tmp_path / "out"
    if resume:
        run(settings, out)
    (out / "checkpoints").mkdir(parents=True, exist_ok=True)
    strays = [out / OURS[0], out / "checkpoints" / OURS[1]]
    for path in strays:
        path.write_bytes(b"")
    run(settings, out, resume=resume)
    assert not any(path.exists() for path in strays)


def test_the_pattern_is_that_of_the_writer(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "replace", lambda *_: os._exit)
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    write_bytes(tmp_path / "a", b"")
    (left,) = os.listdir(tmp_path)
    assert atomic._TEMPORARY.fullmatch(left)
