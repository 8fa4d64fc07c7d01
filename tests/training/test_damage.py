"""Damaged files of a run: one error of one line that names the file, or the right run."""

import json
import random
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from glsk import CheckpointError, GlskError
from glsk.training import checkpoint
from glsk.training.checkpoint import Checkpoint
from glsk.training.config import ENGINE, Config
from glsk.training.metrics import read_metrics
from glsk.training.run_folder import read_config
from tests.training.runs import StoppedError, config, metrics, outcome, run, stop_at, write_data


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data") / "tiny.npz")


@pytest.fixture(scope="module")
def settings(data):
    return config(data, warm_epochs=1, epochs=1, eval_methods=("IBP",))


@pytest.fixture(scope="module")
def whole(settings, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "out"
    run(settings, out)
    return outcome(out)


@pytest.fixture(scope="module")
def _stopped(settings, tmp_path_factory):
    out = tmp_path_factory.mktemp("stopped") / "out"
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 6)  # after checkpoints at 2 and 5
        with pytest.raises(StoppedError):
            run(settings, out)
    assert [path.name for path in checkpoint._paths(out / "checkpoints")] == [
        "step-000000002.safetensors",
        "step-000000005.safetensors",
    ]
    return out


@pytest.fixture
def out(_stopped, tmp_path):
    """A run that was killed in its sixth step."""
    return Path(shutil.copytree(_stopped, tmp_path / "out"))


def one_line(error, path):
    text = str(error.value)
    assert str(path) in text
    assert "\n" not in text
    assert "object has no attribute" not in text


def noise(seed, size=400):
    return random.Random(seed).randbytes(size)


# config.json

CONFIGS = {
    "empty": b"",
    "blank": b" \n",
    "list": b"[]",
    "null": b"null",
    "number": b"5",
    "text": b'"quick"',
    "true": b"true",
    "no settings": b"{}",
    "cut": b'{"model": "cnn3", "eps"',
    "twice": b"{}{}",
    "nested": b"[" * 100_000,
    "nested objects": b'{"a":' * 100_000,
    "utf-16": '{"model": "cnn3"}'.encode("utf-16"),
    "zeros": bytes(500),
    **{f"noise {seed}": noise(seed) for seed in range(8)},
}
VALUES = [
    ("model", 5), ("model", None), ("model", ["cnn3"]), ("model", {}), ("dataset", 1), ("eps", "0.1"), ("eps", True),
    ("eps", float("nan")), ("eps", -1), ("eps", 10**400), ("seed", 2**63), ("seed", -1), ("seed", 0.5), ("seed", True),
    ("eval_methods", "IBP"), ("eval_methods", [1]), ("augment", 1), ("augment", "yes"), ("tensorboard", None),
    ("device", 0), ("threads", "all"), ("checkpoint_every", 0), ("unknown", 1), ("phases", 1), ("phases", []),
    ("phases", [1]), ("phases", None),
]  # fmt: skip
OF_A_PHASE = [
    ("popsize", 5), ("popsize", 6.0), ("popsize", "6"), ("popsize", None), ("popsize", [6]), ("milestones", 3),
    ("milestones", "1,2"), ("milestones", [1.5]), ("milestones", [[1]]), ("milestones", None), ("estimator", None),
    ("objective", "zonotope"), ("objective", None), ("objective", [1]), ("eps", "0.1"), ("name", 3), ("lr", -1),
    ("unknown", 1),
]  # fmt: skip


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_config_that_is_none_is_named(tmp_path, kind):
    path = tmp_path / "config.json"
    path.write_bytes(CONFIGS[kind])
    with pytest.raises(CheckpointError, match="damaged, no run to resume") as error:
        read_config(tmp_path)
    one_line(error, path)


@pytest.mark.parametrize(("name", "value"), VALUES)
def test_a_config_with_a_bad_setting_names_both(tmp_path, name, value):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**Config().to_dict(), name: value}))
    with pytest.raises(CheckpointError, match=name) as error:
        read_config(tmp_path)
    one_line(error, path)


@pytest.mark.parametrize(("name", "value"), OF_A_PHASE)
def test_a_phase_with_a_bad_setting_names_both(tmp_path, name, value):
    path, values = tmp_path / "config.json", Config().to_dict()
    (values["phases"][0]["estimator"] if name == "popsize" else values["phases"][0])[name] = value
    path.write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=name) as error:
        read_config(tmp_path)
    one_line(error, path)


@pytest.mark.parametrize("name", [name for name in Config.__dataclass_fields__ if name not in ENGINE])
def test_a_config_that_lacks_what_makes_the_run_is_refused(tmp_path, name):
    values = Config().to_dict()
    del values[name]
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=f"it lacks {name}"):
        read_config(tmp_path)


def test_a_config_may_lack_engine_settings(tmp_path):
    values = {name: value for name, value in Config().to_dict().items() if name not in ENGINE}
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert read_config(tmp_path) == Config()


def test_a_config_that_is_a_folder_is_named(tmp_path):
    (tmp_path / "config.json").mkdir()
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read_config(tmp_path)


@pytest.mark.parametrize("kind", ["list", "nested", "noise 0", "no settings"])
def test_a_run_without_checkpoint_does_not_go_on_with_a_damaged_config(settings, tmp_path, kind):
    (tmp_path / "config.json").write_bytes(CONFIGS[kind])
    with pytest.raises(CheckpointError) as error:
        run(settings, tmp_path, resume=True)
    one_line(error, tmp_path / "config.json")
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


# before the first checkpoint


@pytest.mark.parametrize("left", [["config.json"], ["config.json", "metrics.jsonl"], ["config.json", "checkpoints"]])
def test_a_run_killed_before_its_first_checkpoint_starts_from_the_start(out, settings, whole, left):
    shutil.rmtree(out / "checkpoints")
    (out / "checkpoints").mkdir()
    for path in out.iterdir():
        if path.name not in left:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    _, said = run(read_config(out), out, resume=True)
    assert "from the start" in said
    assert outcome(out) == whole


def test_it_cannot_change_its_settings_either(out, settings):
    shutil.rmtree(out / "checkpoints")
    with pytest.raises(ValueError, match=r"cannot change within a run: seed \(0 -> 3\)"):
        run(settings.override(seed=3), out, resume=True)


# metrics.jsonl

LINES = {
    "blank": b"\n",
    "blanks": b"  \t\n",
    "text": b"step 3\n",
    "list": b"[1]\n",
    "null": b"null\n",
    "no step": b'{"stage": "pgpe"}\n',
    "no stage": b'{"step": 1}\n',
    "step is text": b'{"step": "1", "stage": "pgpe"}\n',
    "step is none": b'{"step": null, "stage": "pgpe"}\n',
    "step is true": b'{"step": true, "stage": "pgpe"}\n',
    "stage is a number": b'{"step": 1, "stage": 2}\n',
    "cut in the middle": b'{"step": 1, "st\n',
    "two in one": b'{"step": 1, "stage": "pgpe"}{"step": 2, "stage": "pgpe"}\n',
    "nested": b"[" * 100_000 + b"\n",
    "not utf-8": b'{"step": 1, "stage": "\xff"}\n',
    "zeros": bytes(40) + b"\n",
    "carriage return": b"\r\n",
    **{f"noise {seed}": noise(seed).replace(b"\n", b" ") + b"\n" for seed in range(4)},
}


@pytest.mark.parametrize("place", [0, 2, 99])
@pytest.mark.parametrize("kind", LINES)
def test_a_damaged_line_is_named_and_left_out_by_a_resumed_run(out, settings, whole, kind, place):
    path = out / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    place = min(place, len(lines))
    path.write_bytes(b"".join([*lines[:place], LINES[kind], *lines[place:]]))
    with pytest.raises(ValueError, match=f"line {place + 1} is damaged") as error:
        read_metrics(path)
    one_line(error, path)
    if place == 2:
        _, said = run(settings, out, resume=True)
        assert f"{path}: left out 1 damaged lines" in said
        assert outcome(out) == whole


def test_metrics_that_are_a_folder_are_named(out, settings):
    (out / "metrics.jsonl").unlink()
    (out / "metrics.jsonl").mkdir()
    with pytest.raises(OSError, match=r"metrics\.jsonl"):
        run(settings, out, resume=True)


def test_metrics_that_are_gone_start_again_at_the_checkpoint(out, settings, whole):
    (out / "metrics.jsonl").unlink()
    run(settings, out, resume=True)
    assert metrics(out) == [record for record in whole[0] if record["step"] > 5]


# checkpoints


def replace_by_folder(path):
    path.unlink()
    path.mkdir()


def dangling(path):
    path.unlink()
    path.symlink_to("nowhere")


def cut(share):
    return lambda path: path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def flipped(seed):
    def flip(path):
        raw = bytearray(path.read_bytes())
        raw[random.Random(seed).randrange(len(raw))] ^= 1 << seed % 8
        path.write_bytes(bytes(raw))

    return flip


def content(raw):
    return lambda path: path.write_bytes(raw)


FILES = {
    "folder": replace_by_folder,
    "dangling link": dangling,
    "empty": content(b""),
    "text": content(b"hello"),
    "json": content(b"{}"),
    "zeros": content(bytes(1000)),
    "huge header": content(b"\xff" * 8 + b"{}"),
    "other tensors": lambda path: save_file({"a": torch.ones(2)}, str(path)),
    "appended": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    **{f"cut to {share}": cut(share) for share in (0.001, 0.01, 0.5, 0.999)},
    **{f"flipped {seed}": flipped(seed) for seed in range(12)},
    **{f"noise {seed}": content(noise(seed)) for seed in range(4)},
}


@pytest.mark.parametrize("kind", FILES)
def test_when_all_checkpoints_are_damaged_they_are_named(out, settings, kind):
    for path in (out / "checkpoints").iterdir():
        FILES[kind](path)
    with pytest.raises(CheckpointError) as error:
        run(settings, out, resume=True)
    one_line(error, out / "checkpoints" / "step-000000005.safetensors")
    one_line(error, out / "checkpoints" / "step-000000002.safetensors")


@pytest.mark.parametrize("kind", [kind for kind in FILES if kind != "folder"])
def test_a_damaged_newest_checkpoint_costs_steps_but_no_bit(out, settings, whole, kind):
    FILES[kind](out / "checkpoints" / "step-000000005.safetensors")
    _, said = run(settings, out, resume=True)
    assert "resumed at step 2" in said
    assert outcome(out) == whole


def test_a_folder_in_the_way_of_a_checkpoint_is_named(out, settings):
    path = out / "checkpoints" / "step-000000005.safetensors"
    replace_by_folder(path)
    with pytest.raises(OSError, match="directory") as error:
        run(settings, out, resume=True)
    assert error.value.filename == str(path)


def test_an_old_folder_that_looks_like_a_checkpoint_is_left_alone(out, settings, whole):
    (out / "checkpoints" / "step-000000001.safetensors").mkdir()
    run(settings, out, resume=True)
    assert outcome(out) == whole


def without(name):
    return lambda meta, tensors: meta.pop(name)


def changed(**values):
    return lambda meta, tensors: meta.update(values)


def tensor(name, value):
    return lambda meta, tensors: tensors.update({name: value})


META = {
    **{f"without {name}": without(name) for name in ("config", "data", "phase", "index", "estimator", "results")},
    "config is a list": changed(config=[1]),
    "config is null": changed(config=None),
    "phase is text": changed(phase="pgpe"),
    "phase is too late": changed(phase=7),
    "phase is negative": changed(phase=-1),
    "index is null": changed(index=None),
    "index is a fraction": changed(index=0.5),
    "index is true": changed(index=True),
    "index is too large": changed(index=10**6),
    "index is negative": changed(index=-1),
    "results are a list": changed(results=[1]),
    "results hold text": changed(results={"warm-start": "good"}),
    "results hold too much": changed(results={"warm-start": {"samples": 1, "luck": 2}}),
    "stage is null": changed(estimator=None),
    "stage is a list": changed(estimator=[]),
    "stage without optimiser": changed(estimator={"loss": 1.0}),
    "stage has another optimiser": changed(estimator={"loss": 1.0, "optimizer": {"groups": []}}),
    "random state of another kind": tensor("rng/torch", torch.zeros(3)),
    "no random state": lambda meta, tensors: tensors.pop("rng/torch"),
    "weights of another shape": tensor("weights/1.weight", torch.zeros(2)),
    "weights too many": tensor("weights/77.weight", torch.zeros(2)),
    "deviation of another shape": tensor("estimator/stdev", torch.zeros(3)),
    "no deviation": lambda meta, tensors: tensors.pop("estimator/stdev"),
    "generator of another kind": tensor("estimator/generator", torch.zeros(3)),
    "moments without a number": tensor("estimator/optimizer/x/y", torch.zeros(3)),
}


@pytest.mark.parametrize("kind", META)
def test_a_checkpoint_that_is_whole_but_does_not_fit_is_named(out, settings, kind):
    folder = out / "checkpoints"
    found = checkpoint.latest(folder)
    meta, tensors = dict(found.meta), dict(found.tensors)
    META[kind](meta, tensors)
    path = checkpoint.write(folder, Checkpoint(found.step, tensors, meta))
    with pytest.raises(GlskError) as error:
        run(settings, out, resume=True)
    one_line(error, path)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", "5", "{}", "{", "[" * 100_000, '{"format": 2}', '{"format": 2, "step": "5"}', '{"step": 5}',
     '{"format": 2, "step": -5}', '{"format": 2, "step": true}', '{"format": 1, "step": 5}'],
)  # fmt: skip
def test_a_checkpoint_that_does_not_say_what_it_holds_is_named(tmp_path, text):
    path, tensors = tmp_path / "step-000000005.safetensors", {"a": torch.ones(2)}
    save_file(tensors, str(path), {"glsk_checkpoint": text, "sha256": checkpoint._digest(tensors, text)})
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["glsk_checkpoint"] == text
    with pytest.raises(CheckpointError) as error:
        checkpoint.read(path)
    one_line(error, path)


# the weights to start from


@pytest.mark.parametrize("kind", [kind for kind in FILES if not kind.startswith(("flipped", "other"))])
def test_damaged_weights_to_start_from_are_named(out, settings, tmp_path, kind):
    path = out / "warm-start.safetensors"
    FILES[kind](path)
    with pytest.raises(CheckpointError) as error:
        run(settings.override(init=str(path)), tmp_path / "new")
    one_line(error, path)
    assert not (tmp_path / "new").exists()
