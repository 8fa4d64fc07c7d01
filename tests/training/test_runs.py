"""Where settings come from, and runs that differ by their seed."""

import json
from pathlib import Path

import pytest
import torch

from glsk.training import preset
from glsk.training.runs import Start, read_seeds, train_seeds
from tests.training.runs import StoppedError, config, metrics, stop_at, write_data


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_settings_come_from_a_preset_or_a_file(tmp_path):
    assert Start("quick").config() == preset("quick")
    assert Start("quick", objective="IBP", estimator="grad").config() == preset("quick-ibp-grad")
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(preset("quick").to_dict()))
    assert Start("mnist-0.1", path).config() == preset("quick")
    found = Start("quick", path, "IBP", "rgs").config()
    assert (found.main.objective, found.main.estimator, found.main.name) == ("IBP", "rgs", "rgs")


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"[" * 100_000, b'{"popsize": 3}', b'{"phases": 1}'])
def test_a_file_that_holds_no_settings_is_named(tmp_path, content):
    path = tmp_path / "mine.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{path}: ") as error:
        Start("quick", path).config()
    assert "\n" not in str(error.value)


def test_a_run_is_named_after_what_it_is():
    assert Start("quick").name == "quick"
    assert Start("mnist-0.1", objective="CROWN", estimator="pgpe-cv").name == "mnist-0.1-crown-pgpe-cv"
    assert Start("quick", Path("some/mine.json"), estimator="grad").name == "mine-grad"


def test_seeds_are_whole_numbers():
    assert read_seeds("0, 2,1") == [0, 2, 1]
    for text in ("", "1,", "a", "1.5"):
        with pytest.raises(ValueError, match="seeds: expected whole numbers"):
            read_seeds(text)
    with pytest.raises(ValueError, match="holds a seed twice"):
        read_seeds("1,2,1")


def test_a_series_of_seeds_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    data = write_data(tmp_path / "tiny.npz")
    settings = config(data, estimator="grad", warm_epochs=0, epochs=2)

    def series(name, resume=False):
        return list(train_seeds(tmp_path / name, "3,1", lambda resumed: settings, resume=resume))

    whole = series("whole")
    assert [(at.name, one.seed) for at, one, _ in whole] == [("seed-3", 3), ("seed-1", 1)]
    with monkeypatch.context() as patch:
        stop_at(patch, 14)  # in the second run
        with pytest.raises(StoppedError):
            series("broken")
    again = series("broken", resume=True)
    assert [results for _, _, results in again] == [results for _, _, results in whole]
    for seed in ("seed-3", "seed-1"):
        assert metrics(tmp_path / "broken" / seed) == metrics(tmp_path / "whole" / seed)
    assert metrics(tmp_path / "whole/seed-3") != metrics(tmp_path / "whole/seed-1")
