"""State dicts that torch.save wrote: tensors are read, and nothing is executed."""

import os
import pickle

import pytest
import torch

from glsk import CheckpointError
from glsk.formats import read_state_dict
from glsk.models import build
from glsk.training.weights import load_weights


class Program:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_a_state_dict_is_read_as_it_is_or_under_its_usual_name(tmp_path):
    state = build("cnn3").state_dict()
    for content in (state, {"epoch": 3, "state_dict": state}):
        torch.save(content, tmp_path / "net.pt")
        found = read_state_dict(tmp_path / "net.pt")
        assert found.keys() == state.keys()
        assert all(found[name].equal(value) for name, value in state.items())
    net, description = load_weights(tmp_path / "net.pt", "cnn3")
    assert description is None
    assert net[0].weight.equal(state["0.weight"])


@pytest.mark.parametrize("how", ["zip", "legacy", "pickle"])
def test_a_program_is_refused_and_not_executed(tmp_path, monkeypatch, how):
    monkeypatch.chdir(tmp_path)
    content = {"weight": Program()}
    if how == "pickle":
        (tmp_path / "net.pt").write_bytes(pickle.dumps(content))
    else:
        torch.save(content, tmp_path / "net.pt", _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(CheckpointError, match=r"net\.pt: .*damaged"):
        read_state_dict(tmp_path / "net.pt")
    assert not (tmp_path / "executed").exists()


def test_what_is_no_state_dict_is_named(tmp_path):
    path = tmp_path / "net.pt"
    torch.save({"a": torch.ones(2)}, path)
    good = path.read_bytes()
    for content, message in {good[:50]: "damaged", good[:-30]: "damaged", b"": "damaged"}.items():
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            read_state_dict(path)
    for value, message in (
        (torch.ones(2), "holds Tensor, expected a state dict"),
        ({}, "holds dict, expected"),
        ({"a": 3}, "a: expected a dense tensor, got int"),
        ({1: torch.ones(1)}, "expected a dense tensor"),
        ({"a": torch.eye(2).to_sparse()}, "expected a dense tensor"),
    ):
        torch.save(value, path)
        with pytest.raises(CheckpointError, match=message):
            read_state_dict(path)
    with pytest.raises(CheckpointError, match=r"none\.pt"):
        read_state_dict(tmp_path / "none.pt")
