import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from glsk.cli import app


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Nets this small only lose by sharing; and the cores may be shared already."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    random = np.random.RandomState(0)
    centres = random.rand(10, 8, 8)
    y = np.arange(40) % 10
    x = np.clip(centres[y] + 0.1 * random.randn(40, 8, 8), 0, 1)
    path = tmp_path_factory.mktemp("data") / "tiny.npz"
    np.savez(path, x_train=x, y_train=y, x_test=x[:10], y_test=y[:10])
    return str(path)


def invoke(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)


def train(data, out, *more):
    quick = (
        "warm-start.batch_size=20",
        "warm-start.attack_steps=2",
        "eval_attack_steps=2",
        "tensorboard=no",
        "eval_methods=IBP,CROWN",
    )
    return invoke(
        "train", "--data", data, "--out", out, "--method", "crown-ibp", "--eps", "5/255",
        "--epochs", 2, "--warm-epochs", 1, "--batch-size", 20, "--popsize", 4, "--threads", 1,
        *(part for setting in quick for part in ("--set", setting)), *more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "out"
    return out, train(data, out, "--set", "tensorboard=yes")


def error(result):
    """The one line that says what is wrong."""
    assert result.exit_code == 2
    assert result.exception is None or isinstance(result.exception, SystemExit)
    lines = result.stderr.strip().splitlines()
    assert len([line for line in lines if line.startswith("glsk: error: ")]) == 1
    assert "Traceback" not in result.output
    return lines[-1]


def test_train_ends_with_the_accuracies_before_and_after(trained):
    out, result = trained
    assert result.exit_code == 0, result.output
    assert "warm-start" in result.stdout
    assert "pgpe" in result.stdout
    assert "natural" in result.stdout
    assert "CROWN" in result.stdout
    assert "weights.safetensors" in result.stdout
    config = json.loads((out / "config.json").read_text())
    assert config["eps"] == 5 / 255
    assert config["phases"][1]["estimator"]["popsize"] == 4


def test_tensorboard_has_the_numbers_and_the_picture_of_a_run(trained):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    pytest.importorskip("matplotlib")
    events = accumulator.EventAccumulator(str(trained[0] / "tensorboard"))
    events.Reload()
    assert {"pgpe/loss", "evaluation/natural"} <= set(events.Tags()["scalars"])
    (picture, *_) = events.Images("curves")
    assert picture.encoded_image_string[:8] == b"\x89PNG\r\n\x1a\n"
    assert picture.step == max(event.step for event in events.Scalars("pgpe/loss"))
    assert min(picture.width, picture.height) > 300


def test_train_resumes_a_run_without_its_settings(trained, data):
    out, first = trained
    again = invoke("train", "--out", out, "--resume")
    assert again.exit_code == 0, again.output
    assert again.stdout == first.stdout


def test_a_series_of_seeds_from_the_settings_of_a_run(trained, data, tmp_path):
    settings = trained[0] / "config.json"
    arguments = (
        "--config",
        settings,
        "--estimator",
        "pgpe-cv",
        "--popsize",
        2,
        "--warm-epochs",
        0,
        "--train-eps",
        "1/255",
    )
    result = invoke("train", "--data", data, "--out", tmp_path, "--seeds", "5,6", *arguments)
    assert result.exit_code == 0, result.output
    for seed in (5, 6):
        assert f"seed {seed}" in " ".join(result.stdout.split())
        config = json.loads((tmp_path / f"seed-{seed}" / "config.json").read_text())
        assert (config["seed"], config["eps"]) == (seed, 5 / 255)
        assert [(phase["name"], phase["eps"]) for phase in config["phases"]][1] == ("pgpe-cv", 1 / 255)
        assert (tmp_path / f"seed-{seed}" / "weights.safetensors").exists()


def test_certify_prints_a_table_or_json(trained, data):
    weights = trained[0] / "weights.safetensors"
    result = invoke("certify", weights, "--data", data, "-n", 6, "--method", "IBP", "--method", "DeepPoly", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["samples"] == 6
    assert found["eps"] == 5 / 255
    assert set(found["certified"]) == {"IBP", "CROWN"}
    table = invoke("certify", weights, "--data", data, "--eps", 0.01, "--restarts", 1, "--dtype", "float64")
    assert "10 images of tiny, eps 0.01" in " ".join(table.stdout.split())


def test_certify_decides_every_image_and_goes_on(trained, data, tmp_path):
    weights, path = trained[0] / "weights.safetensors", tmp_path / "verdicts.jsonl"
    arguments = ("certify", weights, "--data", data, "-n", 6, "--verdicts", path, "--restarts", 1)
    result = invoke(*arguments, "--complete", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["samples"] == 6
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0]["samples"] == 6
    assert sorted(line["index"] for line in lines[1:]) == list(range(6))
    assert all({"status", "stage", "seconds"} <= set(line) for line in lines[1:])
    assert "exists already" in error(invoke(*arguments, "--complete"))
    path.write_text("".join(json.dumps(line) + "\n" for line in lines[:4]))
    again = invoke(*arguments, "--complete", "--resume")
    assert "6 images of tiny" in " ".join(again.stdout.split())
    assert path.read_text().count("\n") == 7
    assert "its complete is True, not False" in error(invoke(*arguments, "--resume"))
    assert "--method" in error(invoke("certify", weights, "--data", data, "--complete", "--method", "IBP"))
    assert "--resume" in error(invoke("certify", weights, "--data", data, "--resume"))


def test_certify_reads_checkpoints(trained, data):
    checkpoint = max((trained[0] / "checkpoints").iterdir())
    arguments = ("--data", data, "--method", "IBP", "--json", "--restarts", 1)
    found, expected = (
        invoke("certify", path, *arguments).stdout for path in (checkpoint, trained[0] / "weights.safetensors")
    )
    assert json.loads(found) == json.loads(expected)


def test_bounds_prints_tables_or_json(trained, data):
    weights = trained[0] / "weights.safetensors"
    result = invoke("bounds", weights, "--data", data, "--index", 3, "--method", "hbox", "--json")
    found = json.loads(result.stdout)
    assert found["label"] == 3
    assert found["method"] == "HBox"
    assert len(found["margins"]) == 9
    table = invoke("bounds", weights, "--data", data, "--index", 3)
    assert "margin over class" in table.stdout
    assert "unstable" in table.stdout


def test_info_names_every_backend():
    result = invoke("info")
    assert result.exit_code == 0
    for name in ("reference", "cpu", "triton", "cuda", "torch"):
        assert name in result.stdout


def test_info_as_json():
    found = json.loads(invoke("info", "--json").stdout)
    assert found["backends"]["reference"] is None
    assert found["versions"]["torch"] == torch.__version__


def test_a_list_is_repeated_or_has_commas(trained, data):
    weights = trained[0] / "weights.safetensors"
    once = ("certify", weights, "--data", data, "-n", 2, "--restarts", 0, "--json")
    for given in (("--method", "IBP, DeepPoly"), ("--method", "IBP,hbox", "--method", "CROWN")):
        found = json.loads(invoke(*once, *given).stdout)
        assert {"IBP", "CROWN"} <= set(found["certified"]) <= {"IBP", "HBox", "CROWN"}


def test_a_device_that_is_not_here_is_refused_by_every_command_that_computes(trained, data):
    weights = trained[0] / "weights.safetensors"
    for command in ("certify", "bounds"):
        assert "device: unknown 'tpu'" in error(invoke(command, weights, "--data", data, "--device", "tpu"))


def test_verdicts_are_computed_on_the_cpu(trained, data, monkeypatch):
    monkeypatch.setattr("glsk.device.check_device", torch.device)  # as if there were a GPU
    options = ("--data", data, "--complete", "--device", "cuda")
    said = error(invoke("certify", trained[0] / "weights.safetensors", *options))
    assert "device: a verdict of every image is computed in float64 on the CPU, not on 'cuda'" in said


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_is_given_completions(shell):
    words = {"_GLSK_COMPLETE": f"complete_{shell}", "COMP_WORDS": "glsk ce", "COMP_CWORD": "1"}
    words |= {"_TYPER_COMPLETE_ARGS": "glsk ce", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    result = CliRunner().invoke(app, [], prog_name="glsk", env=words)
    assert "certify" in result.output
    assert "train" not in result.output


def test_without_a_command_the_help_is_shown():
    result = CliRunner().invoke(app, [])
    assert "certify" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "nothing"], "preset: unknown 'nothing'"),
        (["--set", "population=3"], "setting: unknown 'population' in phase pgpe"),
        (["--estimator", "grad", "--popsize", "4"], "setting: unknown 'popsize' in phase grad"),
        (["--estimator", "es"], "estimator: unknown 'es'; known: grad, "),
        (["--method", "alpha-CROWN", "--estimator", "grad"], "grad needs a gradient, alpha-CROWN has none"),
        (["--set", "grad.epochs=3"], "setting: 'grad.epochs' is of no phase of this run; they are warm-start, pgpe"),
        (["--actors", "2", "--estimator", "grad"], "actors: no phase of this run has a population"),
        (["--seeds", "0,x"], "seeds: expected whole numbers"),
        (["--seeds", "1,1"], "holds a seed twice"),
        (["--seeds", "1", "--seed", "2"], "--seeds: leave out --seed"),
        (["--config", "nothing.json"], "nothing.json"),
        (["--popsize", "3"], "popsize: expected an even number"),
        (["--method", "zonotope"], "zonotope"),
        (["--model", "resnet"], "model: unknown 'resnet'"),
        (["--eps", "x"], "eps: cannot read 'x'"),
        (["--init", "nothing.safetensors"], "nothing.safetensors: no such file"),
        (["--backend", "tpu"], "backend: unknown 'tpu'"),
    ],
)
def test_train_says_what_is_wrong_in_one_line(data, tmp_path, arguments, message):
    assert message in error(invoke("train", "--data", data, "--out", tmp_path / "out", *arguments))
    assert not (tmp_path / "out" / "checkpoints").exists()


def test_data_that_is_missing_is_named(tmp_path):
    assert "none.npz: no such file" in error(
        invoke("train", "--data", tmp_path / "none.npz", "--out", tmp_path / "out")
    )


def test_a_run_is_not_overwritten_and_a_missing_one_not_resumed(trained, data, tmp_path):
    assert "holds a run already" in error(train(data, trained[0]))
    assert "no run to resume" in error(invoke("train", "--out", tmp_path / "none", "--resume"))


def test_certify_and_bounds_say_what_is_wrong_in_one_line(trained, data, tmp_path):
    weights = trained[0] / "weights.safetensors"
    assert "no such file" in error(invoke("certify", tmp_path / "none", "--data", data))
    assert "dtype: unknown 'half'" in error(invoke("certify", weights, "--data", data, "--dtype", "half"))
    assert "10 test images, got 10" in error(invoke("bounds", weights, "--data", data, "--index", 10))
    (tmp_path / "cut").write_bytes(weights.read_bytes()[:50])
    assert "cut: truncated, corrupt" in error(invoke("certify", tmp_path / "cut", "--data", data))


def test_weights_and_images_must_agree(trained, tmp_path):
    path = tmp_path / "larger.npz"
    np.savez(path, x=np.zeros((2, 12, 12)), y=np.array([0, 1]))
    message = error(invoke("certify", trained[0] / "weights.safetensors", "--data", path))
    assert "takes images (1, 8, 8), larger has (1, 12, 12)" in message


def test_an_interrupt_ends_with_130(monkeypatch, data, tmp_path):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("glsk.training.loop.train", interrupted)
    result = invoke("train", "--data", data, "--out", tmp_path / "out")
    assert result.exit_code == 130
    assert "interrupted" in result.stderr
