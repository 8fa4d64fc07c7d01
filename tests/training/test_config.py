import pytest

from glsk.models import MODELS
from glsk.training import PRESETS, Config, preset
from glsk.training.config import parse_setting


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_valid_and_survives_json(name):
    config = preset(name)
    assert Config.from_dict(config.to_dict()) == config
    assert config.model in MODELS


def test_the_papers_settings():
    config = preset("mnist-0.1-cnn3-deeppoly")
    assert (config.popsize, config.stdev_init, config.lr, config.batch_size) == (256, 1e-3, 3e-4, 512)
    assert (config.epochs, config.milestones, config.gamma, config.anneal_epochs) == (150, (110, 130), 0.4, 0)
    assert (config.method, config.algorithm, config.optimizer, config.augment) == ("CROWN", "pgpe", "adam", False)
    assert preset("mnist-0.3-cnn5-ibp").anneal_epochs == 50
    cifar = preset("cifar10-8-255-cnn3-deeppoly")
    assert (cifar.eps, cifar.batch_size, cifar.anneal_epochs, cifar.augment) == (8 / 255, 128, 50, True)
    assert preset("cifar10-2-255-cnn3-deeppoly").anneal_epochs == 0
    grad = preset("mnist-0.1-cnn3-hbox-grad")
    assert (grad.algorithm, grad.lr, grad.epochs, grad.milestones, grad.gamma) == ("grad", 5e-5, 70, (50, 60), 0.2)


def test_unknown_preset_says_which_there_are():
    with pytest.raises(ValueError, match=r"unknown 'x'; known: quick, and <mnist-0\.1\|"):
        preset("x")


@pytest.mark.parametrize(
    "bad",
    [
        {"popsize": 7},
        {"popsize": 0},
        {"stdev_init": 0.0},
        {"lr": float("nan")},
        {"eps": -0.1},
        {"epochs": -1},
        {"batch_size": 0},
        {"checkpoint_every": 0},
        {"algorithm": "es"},
        {"optimizer": "sgd"},
        {"ranking": "nes"},
        {"method": "zonotope"},
        {"eval_methods": ("CROWN", "zonotope")},
        {"backend": "tpu"},
        {"device": "gpu1"},
    ],
)
def test_a_bad_value_is_named(bad):
    (name,) = bad
    with pytest.raises(ValueError, match=name.removeprefix("eval_").removesuffix("s")):
        Config(**bad)


def test_one_of_several_devices_can_be_named():
    assert Config(device="cuda:1").device == "cuda:1"


def test_override_refuses_unknown_settings():
    assert Config().override(popsize=8).popsize == 8
    with pytest.raises(ValueError, match="unknown 'population'"):
        Config().override(population=8)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("popsize=64", ("popsize", 64)),
        ("warm-lr=1e-2", ("warm_lr", 0.01)),
        ("eps=2/255", ("eps", 2 / 255)),
        ("milestones=3, 5", ("milestones", (3, 5))),
        ("milestones=", ("milestones", ())),
        ("eval_methods=IBP,CROWN", ("eval_methods", ("IBP", "CROWN"))),
        ("augment=true", ("augment", True)),
        ("tensorboard=0", ("tensorboard", False)),
        ("init=a=b", ("init", "a=b")),
    ],
)
def test_settings_are_parsed_by_type(text, expected):
    assert parse_setting(text) == expected


@pytest.mark.parametrize("text", ["popsize", "nothing=1", "popsize=1.5", "augment=maybe", "eps=a/b"])
def test_bad_settings(text):
    with pytest.raises(ValueError, match=text.split("=")[0]):
        parse_setting(text)
