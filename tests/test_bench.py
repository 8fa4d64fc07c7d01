"""What the benchmarks compare against computes the same bounds, and their scripts run."""

import json
from pathlib import Path

import pytest
import torch

import glsk
from bench import agreement, cases, compare, memory, peer_auto_lirpa, readme_table, step_share, workloads
from bench.cases import CASES
from bench.vmapped import METHODS, VmappedBounds
from tests.support import assert_close


def test_all_methods_are_compared() -> None:
    assert set(METHODS) == set(glsk.methods()) - {"alpha-CROWN"}  # auto_LiRPA has that one
    assert {"glsk", "auto_LiRPA"} <= set(CASES["cnn3-alpha-crown"].sizes)


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


def _small(name: str, provider: str = "glsk") -> cases.Contender:
    return cases.prepare(CASES[name], provider, (2, 3), "cpu", "reference")


def test_the_gradient_is_that_of_every_member_by_its_own_weights() -> None:
    contender = _small("cnn3-ibp-grad")
    found, case = contender.call(), contender.case
    bounded = glsk.BoundedModule(case.net, (1, 28, 28))
    for p in range(2):
        own = {name: value[p : p + 1].clone().requires_grad_() for name, value in case.params.items()}
        lower, _ = bounded.compute_bounds(
            x_L=case.x_L, x_U=case.x_U, C=case.C, params=own, method="IBP", backend="reference", bound_upper=False
        )
        loss = torch.log1p(torch.exp(-lower[0]).sum(1)).mean()
        wanted = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(own.values()))])
        assert_close(found[p], wanted, 1e-4)
        assert_close(_small("cnn3-ibp-grad", "glsk-forward").call()[p], loss.detach(), 1e-5)


def test_a_gradient_row_says_what_the_forward_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    smoke = ["--smoke", "--repeats", "2", "--no-memory"]
    compare.main([*smoke, "--cases", "cnn3-crown-ibp-grad", "--out", str(tmp_path / "r.json")])
    rows = {row["provider"]: row for row in json.loads((tmp_path / "r.json").read_text())["rows"]}
    assert rows["glsk"]["gradient"]
    assert rows["glsk"]["forward_share"] == rows["glsk"]["median"] / rows["glsk-forward"]["median"]
    assert rows["glsk"]["difference_from_noprune"] <= agreement.AGREEMENT
    assert "forward and backward of the robust loss" in capsys.readouterr().out


def test_cases_are_appended_to_a_result_of_the_same_sources(tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    smoke = ["--smoke", "--repeats", "1", "--no-memory", "--append", "--out", str(out)]
    for case in ("cnn3-ibp", "cnn3-crown-ibp", "cnn3-ibp"):
        compare.main([*smoke, "--cases", case])
    result = json.loads(out.read_text())
    assert list(dict.fromkeys(row["case"] for row in result["rows"])) == ["cnn3-crown-ibp", "cnn3-ibp"]
    assert len({(row["case"], row["provider"]) for row in result["rows"]}) == len(result["rows"])
    result["machine"]["threads"] += 1
    out.write_text(json.dumps(result))
    with pytest.raises(SystemExit, match="differ in threads"):
        compare.main([*smoke, "--cases", "cnn3-ibp"])


def test_optimised_bounds_are_compared_with_where_they_start(tmp_path: Path) -> None:
    smoke = ["--smoke", "--repeats", "1", "--no-memory"]
    compare.main([*smoke, "--cases", "cnn3-alpha-crown", "--out", str(tmp_path / "r.json")])
    for row in json.loads((tmp_path / "r.json").read_text())["rows"]:
        assert row["mean_lower"] > row["mean_lower_crown"]
        assert row["iterations"] == 20


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("cnn3-ibp-grad", lambda found: found + 2e-3 * found.abs().max()),
        ("cnn3-ibp-grad", lambda found: found * torch.nan),
        ("cnn3-ibp", lambda found: found * 1.01),
        ("cnn3-alpha-crown", lambda found: found - 1.0),
    ],
)
def test_nothing_is_timed_where_providers_differ(name: str, wrong: object, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare = cases.prepare

    def spoilt(case: cases.Case, provider: str, *rest: object) -> cases.Contender:
        contender = prepare(case, provider, *rest)
        if provider == "spoilt" or (provider == "glsk" and case.method == "alpha-CROWN"):
            right = contender.call
            contender.call = lambda: wrong(right())
        return contender

    monkeypatch.setattr(cases, "prepare", spoilt)
    with pytest.raises(SystemExit, match="nothing was timed"):
        agreement.check(CASES[name], ["glsk", "spoilt"], (1, 2), "cpu", "reference")


@pytest.mark.parametrize("name", ["cnn3-crown-grad", "cnn3-crown-ibp-grad", "cnn3-ibp-grad"])
def test_gradients_are_those_of_auto_lirpa(name: str) -> None:
    if cases.why_missing("auto_LiRPA") is not None:
        pytest.skip(f"{peer_auto_lirpa.VARIABLE} names no checkout of auto_LiRPA")
    found = agreement.check(CASES[name], ["glsk", "auto_LiRPA"], (1, 2), "cpu", "auto")
    assert found["auto_LiRPA"]["difference_from_noprune"] <= 1e-4


def test_peak_memory_is_measured_in_a_process_of_its_own() -> None:
    found = memory.measure("cnn3-ibp", "glsk", members=2, samples=4)
    assert 50 << 20 < found["peak_bytes"] < 8 << 30
    assert 0 <= found["added_bytes"] <= found["peak_bytes"]


def test_the_readme_shows_what_was_recorded() -> None:
    readme_table.main(["--check"])


def test_the_readme_needs_its_markers() -> None:
    with pytest.raises(ValueError, match="markers"):
        readme_table.render("no table")


def _recorded(folder: Path, name: str, rows: list[dict[str, object]]) -> None:
    machine = {"device": "cpu", "threads": 2, "cpu": "a processor", "isa": "avx2"}
    common = {"net": "cnn3", "method": "CROWN", "members": 1, "samples": 256}
    (folder / name).write_text(json.dumps({"machine": machine, "rows": [common | row for row in rows]}))


def test_gradients_have_a_table_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readme_table, "RESULTS", tmp_path)
    bounds = {"case": "cnn3-crown", "provider": "glsk", "median": 30.0}
    _recorded(tmp_path, "compare-a.json", [bounds])
    before = list(readme_table.lines())
    gradient = {"case": "cnn3-crown-grad", "gradient": True}
    own = gradient | {"provider": "glsk", "median": 120.0, "forward_share": 4.0}
    peer = gradient | {"provider": "auto_LiRPA", "median": 6000.0}
    _recorded(tmp_path, "compare-b.json", [own, gradient | {"provider": "glsk-forward", "median": 30.0}, peer])
    after = list(readme_table.lines())
    assert after[: len(before)] == before
    assert "| CNN3, DeepPoly | 1 × 256 | 120 | 6,000 | 50× | 4× |" in after[len(before) :]
    assert "[compare-b](bench/results/compare-b.json)" in "\n".join(after[len(before) :])


def test_the_table_says_how_tight_optimised_bounds_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readme_table, "RESULTS", tmp_path)
    row = {"case": "cnn3-alpha-crown", "method": "alpha-CROWN", "iterations": 20, "mean_lower_crown": 3.18}
    own, peer = (row | {"provider": p, "median": 9.0, "mean_lower": 3.34} for p in ("glsk", "auto_LiRPA"))
    _recorded(tmp_path, "compare-a.json", [own, peer])
    assert (
        "CNN3, α-CROWN, 20 iterations: mean lower bounds glsk's 3.3400, auto_LiRPA's 3.3400, CROWN's 3.1800."
        in readme_table.lines()
    )


def test_the_share_of_a_step_is_measured_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--popsize", "4", "--samples", "4", "--steps", "2", "--backend", "reference"]
    step_share.main([*small, "--out", str(tmp_path / "share.json")])
    found = json.loads((tmp_path / "share.json").read_text())
    assert 0 < found["bounds_s"] < found["step_s"]
    assert 0 < found["outside"] < 1
    assert "P = 4, B = 4" in capsys.readouterr().out
