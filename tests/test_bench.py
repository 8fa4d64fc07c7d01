"""What the benchmarks compare against computes the same bounds, and their scripts run."""

import json
from pathlib import Path

import pytest
import torch

import glsk
from bench import compare, memory, readme_table, step_share, workloads
from bench.vmapped import METHODS, VmappedBounds
from tests.support import assert_close


def test_all_methods_are_compared() -> None:
    assert set(METHODS) == set(glsk.methods())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("net", "members", "samples", "limit"), [("cnn3", 3, 4, 256 << 20), ("cnn3", 3, 4, 1), ("cnn5", 1, 2, 1 << 30)]
)
def test_the_vmapped_bounds_are_those_of_glsk(net: str, members: int, samples: int, limit: int, method: str) -> None:
    case = workloads.workload(net, members, samples)
    params = {name: value.double() for name, value in case.params.items()}
    x_L, x_U, C = case.x_L.double(), case.x_U.double(), case.C.double()
    found = VmappedBounds(case.net, (1, 28, 28)).lower(params, x_L, x_U, C, method, limit)
    wanted, _ = glsk.BoundedModule(case.net, (1, 28, 28)).compute_bounds(
        x_L=x_L, x_U=x_U, C=C, params=params, method=method, backend="reference", prune=False, bound_upper=False
    )
    assert_close(found, wanted, 1e-9)


def test_a_population_is_antithetic_and_reproducible() -> None:
    case, again = (workloads.workload("cnn3", 6, 5) for _ in range(2))
    assert (case.members, case.samples, case.pairs) == (6, 5, 30)
    for name, value in case.params.items():
        assert torch.equal(value, again.params[name])
        centre = case.net.get_parameter(name).detach()
        torch.testing.assert_close((value[:3] + value[3:]) / 2, centre.expand_as(value[:3]))
    assert (case.x_L <= case.x_U).all()
    assert case.x_L.min() >= 0
    assert case.x_U.max() <= 1


def test_compare_writes_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compare.main(["--smoke", "--cases", "cnn3-ibp", "--repeats", "2", "--no-memory", "--out", str(tmp_path / "r.json")])
    found = json.loads((tmp_path / "r.json").read_text())
    assert {row["provider"] for row in found["rows"]} >= {"glsk", "vmapped"}
    for row in found["rows"]:
        assert 0 < row["min"] <= row["median"]
        assert row["pairs"] > 0
    assert found["machine"]["threads"] == torch.get_num_threads()
    assert found["machine"]["torch"] == torch.__version__
    assert "cnn3-ibp" in capsys.readouterr().out


def test_peak_memory_is_measured_in_a_process_of_its_own() -> None:
    found = memory.measure("cnn3-ibp", "glsk", members=2, samples=4)
    assert 50 << 20 < found["peak_bytes"] < 8 << 30
    assert 0 <= found["added_bytes"] <= found["peak_bytes"]


def test_the_readme_shows_what_was_recorded() -> None:
    readme_table.main(["--check"])


def test_the_readme_needs_its_markers() -> None:
    with pytest.raises(ValueError, match="markers"):
        readme_table.render("no table")


def test_the_share_of_a_step_is_measured_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--popsize", "4", "--samples", "4", "--steps", "2", "--backend", "reference"]
    step_share.main([*small, "--out", str(tmp_path / "share.json")])
    found = json.loads((tmp_path / "share.json").read_text())
    assert 0 < found["bounds_s"] < found["step_s"]
    assert 0 < found["outside"] < 1
    assert "P = 4, B = 4" in capsys.readouterr().out
