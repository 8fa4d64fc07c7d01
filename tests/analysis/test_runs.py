"""Runs as pictures and tables."""

import csv
import json

import pytest
from typer.testing import CliRunner

from glsk import DataError
from glsk.analysis import final_accuracies, read_runs
from glsk.analysis.curves import curve_rows, plot_curves
from glsk.cli import app


def write(folder, losses, natural, certified):
    folder.mkdir(parents=True)
    records = [{"step": i, "stage": "pgpe", "loss": v, "step_s": 2.0} for i, v in enumerate(losses, 1)]
    for step, (a, b) in zip((0, len(losses)), zip(natural, certified, strict=True), strict=True):
        records.append({"step": step, "stage": "evaluation", "natural": a, "adversarial": None, "certified CROWN": b})
    records.sort(key=lambda record: record["step"])
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


@pytest.fixture
def runs(tmp_path):
    write(tmp_path / "a" / "seed-0", [3, 2, 1], (0.1, 0.8), (0.0, 0.5))
    write(tmp_path / "a" / "seed-1", [4, 3, 2, 1], (0.2, 0.6), (0.0, 0.7))
    write(tmp_path / "b", [5, 0], (0.3, 0.9), (0.1, 0.2))
    return [tmp_path / "a", tmp_path / "b"]


def test_runs_of_a_series_share_a_label(runs):
    found = read_runs(runs)
    assert [(run.label, run.folder.name) for run in found] == [("a", "seed-0"), ("a", "seed-1"), ("b", "b")]
    assert [run.label for run in read_runs([runs[0] / "seed-1"])] == ["a"]
    assert found[0].series("loss") == ([1, 2, 3], [2.0, 4.0, 6.0], [3.0, 2.0, 1.0])
    assert found[0].series("natural") == ([0, 3], [0.0, 6.0], [0.1, 0.8])
    assert found[0].quantities == ["loss", "natural", "certified CROWN"]


def test_labels_are_as_long_as_it_takes_to_tell_them_apart(tmp_path):
    folders = [write(tmp_path / name / "run", [1], (0, 1), (0, 1)) for name in ("x", "y")]
    assert [run.label for run in read_runs(folders)] == ["x/run", "y/run"]


def test_the_table_has_means_and_deviations_of_the_last_evaluation(runs):
    a, b = final_accuracies(read_runs(runs))
    assert (a["label"], a["runs"]) == ("a", 2)
    assert a["natural"] == pytest.approx(0.7)
    assert a["natural sd"] == pytest.approx(0.1 * 2**0.5)
    assert "adversarial" not in a
    assert (b["certified CROWN"], b["certified CROWN sd"]) == (0.2, None)
    result = CliRunner().invoke(app, ["table", *map(str, runs)])
    assert "70.00 ± 14.14" in result.stdout
    assert json.loads(CliRunner().invoke(app, ["table", *map(str, runs), "--json"]).stdout) == [a, b]


def test_the_curves_are_what_was_recorded(runs):
    found = read_runs(runs)
    rows = curve_rows(found)
    assert len(rows) == 3 + 4 + 2 + 3 * 4
    figure = plot_curves(found)
    loss, minutes = figure.axes[:2]
    assert [line.get_label() for line in loss.lines] == ["a (2 seeds)", "b"]
    assert loss.lines[0].get_xydata().tolist() == [[1, 3.5], [2, 2.5], [3, 1.5]]
    assert minutes.lines[1].get_xdata().tolist() == [2 / 60, 4 / 60]
    assert figure.axes[-1].get_xlabel() == "minutes of training"
    assert loss.get_yscale() == "linear"  # one loss is 0
    natural = figure.axes[2]
    assert natural.lines[0].get_xydata()[0].tolist() == pytest.approx([0, 0.15])


def test_the_clock_is_the_wall_or_the_processor(runs, tmp_path):
    path = runs[1] / "metrics.jsonl"
    with pytest.raises(DataError, match=r"b/metrics.jsonl: no step has cpu_s"):
        read_runs([runs[1]], "cpu")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    timed = [{**line, **({"cpu_s": 3.0 * line["step_s"]} if "step_s" in line else {})} for line in lines]
    path.write_text("".join(json.dumps(line) + "\n" for line in timed))
    (wall,), (cpu,) = read_runs([runs[1]]), read_runs([runs[1]], "cpu")
    assert cpu.series("loss")[1] == [3 * seconds for seconds in wall.series("loss")[1]]
    assert (wall.seconds, cpu.seconds) == (4.0, 12.0)
    assert plot_curves([cpu]).axes[-1].get_xlabel() == "CPU minutes of training"
    with pytest.raises(ValueError, match=r"--clock: unknown 'sun'; known: wall, cpu"):
        read_runs([runs[1]], "sun")


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_the_command_writes_the_picture_and_its_numbers(runs, tmp_path, suffix):
    out = tmp_path / "out" / f"p.{suffix}"
    result = CliRunner().invoke(app, ["plot", *map(str, runs), "--out", str(out)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert out.stat().st_size > 1000
    rows = list(csv.DictReader(out.with_suffix(".csv").open()))
    assert rows[0].keys() == {"label", "folder", "quantity", "step", "seconds", "value"}
    assert sorted(path.name for path in out.parent.iterdir()) == ["p.csv", f"p.{suffix}"]


def test_what_is_no_run_is_named(tmp_path):
    with pytest.raises(DataError, match="holds no run"):
        read_runs([tmp_path])
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(DataError, match="holds no record"):
        read_runs([tmp_path])
    (tmp_path / "metrics.jsonl").write_text("{\n{}\n")
    with pytest.raises(DataError, match="line 1 is damaged"):
        read_runs([tmp_path])
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "stage": "pgpe"}\n')
    with pytest.raises(DataError, match="has not been evaluated yet"):
        final_accuracies(read_runs([tmp_path]))
    result = CliRunner().invoke(app, ["plot", str(tmp_path), "--out", "p.gif"])
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "ends in .png, .pdf, .svg" in result.stderr
