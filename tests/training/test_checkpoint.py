import os

import pytest
import torch
from safetensors.torch import save_file

from glsk import CheckpointError
from glsk.training import checkpoint
from glsk.training.checkpoint import Checkpoint


def make(step, value=1.0):
    tensors = {
        "weights/0.weight": torch.full((3, 2), value),
        "estimator/step": torch.tensor(7.0),
        "rng/torch": torch.get_rng_state(),
    }
    return Checkpoint(step, tensors, {"phase": 1, "estimator": {"groups": [{"lr": 0.1, "betas": [0.9, 0.999]}]}})


def flip(path, position):
    raw = bytearray(path.read_bytes())
    raw[position] ^= 1
    path.write_bytes(bytes(raw))


def test_round_trip(tmp_path):
    found = checkpoint.read(checkpoint.write(tmp_path, make(12)))
    assert found.step == 12
    assert found.meta == make(12).meta
    assert found.tensors.keys() == make(12).tensors.keys()
    assert all(torch.equal(found.tensors[name], value) for name, value in make(12).tensors.items())
    assert list(found.group("weights")) == ["0.weight"]


def test_the_last_two_are_kept_and_nothing_else_is_left(tmp_path):
    for step in (0, 5, 10, 100):
        checkpoint.write(tmp_path, make(step))
    assert sorted(os.listdir(tmp_path)) == ["step-000000010.safetensors", "step-000000100.safetensors"]
    assert checkpoint.latest(tmp_path).step == 100


def test_views_and_empty_tensors_are_stored_as_they_are(tmp_path):
    tensors = {"a": torch.arange(12.0).reshape(3, 4).T, "b": torch.empty(0), "c": torch.arange(3)[1:]}
    found = checkpoint.read(checkpoint.write(tmp_path, Checkpoint(1, tensors, {})))
    assert all(torch.equal(found.tensors[name], value) for name, value in tensors.items())


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_a_truncated_checkpoint_is_refused_by_name(tmp_path, keep):
    path = checkpoint.write(tmp_path, make(3))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"step-000000003\.safetensors: truncated, corrupt"):
        checkpoint.read(path)


@pytest.mark.parametrize("position", [-1, -3000])
def test_a_flipped_bit_in_the_data_is_noticed(tmp_path, position):
    path = checkpoint.write(tmp_path, make(3))
    flip(path, position)
    with pytest.raises(CheckpointError, match="does not match its digest"):
        checkpoint.read(path)


def test_a_changed_header_is_noticed(tmp_path):
    path = checkpoint.write(tmp_path, make(3))
    raw = path.read_bytes()
    assert raw.count(b'\\"phase\\": 1') == 1
    path.write_bytes(raw.replace(b'\\"phase\\": 1', b'\\"phase\\": 2'))
    with pytest.raises(CheckpointError, match="does not match its digest"):
        checkpoint.read(path)


def test_a_damaged_newest_one_falls_back_to_the_one_before_and_says_so(tmp_path):
    checkpoint.write(tmp_path, make(3))
    flip(checkpoint.write(tmp_path, make(6)), -1)
    found = checkpoint.latest(tmp_path)
    assert found.step == 3
    assert len(found.skipped) == 1
    assert "step-000000006" in found.skipped[0]


def test_when_all_are_damaged_every_one_is_named(tmp_path):
    for step in (3, 6):
        flip(checkpoint.write(tmp_path, make(step)), -1)
    with pytest.raises(CheckpointError, match=r"step-000000006.*step-000000003"):
        checkpoint.latest(tmp_path)


def test_an_empty_folder_has_nothing_to_resume(tmp_path):
    assert not checkpoint.exists(tmp_path)
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        checkpoint.latest(tmp_path)


def test_other_files_are_no_checkpoints(tmp_path):
    path = tmp_path / "step-000000001.safetensors"
    save_file({"a": torch.ones(2)}, str(path))
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        checkpoint.read(path)
    with pytest.raises(CheckpointError, match="no such file"):
        checkpoint.read(tmp_path / "none")


def test_a_write_that_fails_leaves_the_old_checkpoint_and_no_debris(tmp_path, monkeypatch):
    checkpoint.write(tmp_path, make(3))

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            checkpoint.write(tmp_path, make(6))
    assert os.listdir(tmp_path) == ["step-000000003.safetensors"]
    assert checkpoint.latest(tmp_path).step == 3
