import pytest

from glsk import estimators, objectives
from glsk.models import MODELS
from glsk.training import Config, Phase, preset
from glsk.training.config import flat
from glsk.training.presets import names


@pytest.mark.parametrize("name", names())
def test_every_preset_is_valid_and_survives_json(name):
    config = preset(name)
    assert Config.from_dict(config.to_dict()) == config
    assert config.model in MODELS


def test_the_papers_settings():
    config = preset("mnist-0.1-cnn3-deeppoly")
    warm, pgpe = config.phases
    assert (warm.objective, warm.estimator) == ("PGD", "grad")
    assert (pgpe.estimator_settings.popsize, pgpe.estimator_settings.stdev_init) == (256, 1e-3)
    assert (pgpe.lr, pgpe.batch_size, pgpe.estimator_settings.optimizer) == (3e-4, 512, "adam")
    assert (pgpe.epochs, pgpe.milestones, pgpe.gamma, pgpe.anneal_epochs) == (150, (110, 130), 0.4, 0)
    assert (pgpe.objective, pgpe.estimator, config.augment) == ("CROWN", "pgpe", False)
    assert preset("mnist-0.3-cnn5-ibp").main.anneal_epochs == 50
    cifar = preset("cifar10-8-255-cnn3-deeppoly")
    assert (cifar.eps, cifar.main.batch_size, cifar.main.anneal_epochs, cifar.augment) == (8 / 255, 128, 50, True)
    assert preset("cifar10-2-255-cnn3-deeppoly").main.anneal_epochs == 0
    (grad,) = preset("mnist-0.1-cnn3-hbox-grad").phases
    assert (grad.objective, grad.estimator, grad.lr, grad.epochs) == ("HBox", "grad", 5e-5, 70)
    assert (grad.milestones, grad.gamma, grad.anneal_epochs) == ((50, 60), 0.2, 20)
    (grad,) = preset("cifar10-2-255-cnn3-ibp-grad").phases
    assert (grad.epochs, grad.milestones, grad.anneal_epochs, grad.batch_size) == (160, (120, 140), 80, 128)
    assert [phase.name for phase in preset("mnist-0.1-pgd").phases] == ["warm-start"]


def test_an_objective_and_an_estimator_choose_their_schedules():
    assert preset("mnist-0.1", "crown-ibp", "grad") == preset("mnist-0.1-cnn3-crown-ibp-grad")
    assert preset("mnist-0.1-cnn5-ibp", "DeepPoly") == preset("mnist-0.1-cnn5")
    assert preset("quick", estimator="pgpe-cv").main.name == "pgpe-cv"


@pytest.mark.parametrize("name", ["x", "quick-x", "mnist-0.1-grad-ibp", "mnist-0.1-cnn3x", "mnist-0.1-", ""])
def test_unknown_preset_says_which_there_are(name):
    with pytest.raises(ValueError, match=rf"unknown '{name}'; known: <mnist-0\.1\|"):
        preset(name)


@pytest.mark.parametrize(
    "bad",
    [
        {"popsize": 7},
        {"popsize": 0},
        {"popsize": 4.0},
        {"stdev_init": 0.0},
        {"lr": float("nan")},
        {"lr": True},
        {"eps": -0.1},
        {"epochs": -1},
        {"batch_size": 0},
        {"checkpoint_every": 0},
        {"eval_attack_restarts": 0},
        {"estimator": "es"},
        {"optimizer": "sgd"},
        {"ranking": "nes"},
        {"objective": "zonotope"},
        {"eval_methods": ("CROWN", "zonotope")},
        {"backend": "tpu"},
        {"device": "gpu1"},
        {"initialisation": "zeros"},
        {"decay": "cosine"},
        {"milestones": (1.5,)},
        {"name": "a b"},
        {"name": "evaluation"},
        {"seed": 2**63},
        {"phases": ()},
        {"pgpe.eps": float("inf")},
    ],
)
def test_a_bad_value_is_named(bad):
    (name,) = bad
    with pytest.raises(ValueError, match=name.removeprefix("pgpe.").removeprefix("eval_").removesuffix("s")):
        Config().override(**bad)


# (phases, setting it does not use)
ELSEWHERE = [
    ("grad", "popsize"), ("grad", "stdev_init"), ("rgs", "popsize"), ("pgpe", "grad_clip"), ("pgpe", "members"),
    ("pgpe-cv", "ranking"), ("pgpe", "control_members"), ("pgpe", "attack_steps"),
]  # fmt: skip


@pytest.mark.parametrize(("estimator", "setting"), ELSEWHERE)
def test_a_setting_is_refused_where_nothing_uses_it(estimator, setting):
    config = Config(phases=(Phase(estimator=estimator),))
    with pytest.raises(ValueError, match=f"unknown '{setting}' in phase {estimator}; known: .*; of its estimator"):
        config.override(**{setting: 1})
    with pytest.raises(ValueError, match=f"unknown '{setting}' in phase {estimator}") as error:
        config.read(f"{estimator}.{setting}=1")
    assert "\n" not in str(error.value)
    values = config.to_dict()
    values["phases"][0]["estimator"][setting] = 1
    with pytest.raises(ValueError, match=f"estimator: {estimator} has no setting '{setting}'"):
        Config.from_dict(values)


def test_no_name_of_a_setting_means_two_things_within_a_phase():
    for objective in objectives.names():
        for estimator in estimators.names():
            kinds = estimators.get(estimator).Settings, objectives.settings_type(objective), Phase
            found = [name for kind in kinds for name in kind.__dataclass_fields__]
            assert len(set(found)) == len(found)


def test_a_gradient_needs_an_objective_that_has_one():
    with pytest.raises(ValueError, match="pgpe-cv needs a gradient, alpha-CROWN has none"):
        Phase(objective="alpha-CROWN", estimator="pgpe-cv")
    assert Phase(objective="alpha-CROWN").estimator == "pgpe"


def test_phases_have_names_of_their_own():
    with pytest.raises(ValueError, match="'grad' is the name of more than one"):
        Config(phases=(Phase(estimator="grad"), Phase(estimator="grad")))
    assert Config(phases=(Phase(estimator="grad", name="first"), Phase(estimator="grad"))).main.name == "grad"


def test_actors_need_a_population():
    with pytest.raises(ValueError, match="actors: no phase of this run has a population"):
        Config(phases=(Phase(estimator="grad"),), actors=2)


def test_one_of_several_devices_can_be_named():
    assert Config(device="cuda:1").device == "cuda:1"


def test_settings_reach_the_phase_they_name():
    config = preset("quick").override(**{"warm-start.epochs": 3, "epochs": 4, "eps": 0.2, "pgpe.eps": 0.3})
    assert [phase.epochs for phase in config.phases] == [3, 4]
    assert [config.radius(phase) for phase in config.phases] == [0.2, 0.3]
    with pytest.raises(ValueError, match=r"'grad\.epochs' is of no phase of this run; they are warm-start, pgpe"):
        config.override(**{"grad.epochs": 3})


def test_another_estimator_starts_from_its_own_defaults():
    changed = Phase("CROWN").changed({"popsize": 4, "lr": 0.5}).changed({"estimator": "pgpe-cv"})
    assert (changed.name, changed.estimator_settings.popsize, changed.lr) == ("pgpe-cv", 32, 0.5)
    named = Phase("CROWN", name="main").changed({"estimator": "grad", "grad_clip": 1.0})
    assert (named.name, named.estimator_settings.grad_clip) == ("main", 1.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("popsize=64", ("popsize", 64)),
        ("stdev-init=1e-2", ("stdev_init", 0.01)),
        ("warm-start.lr=1e-2", ("warm-start.lr", 0.01)),
        ("warm-start.attack_steps=3", ("warm-start.attack_steps", 3)),
        ("eps=2/255", ("eps", 2 / 255)),
        ("pgpe.eps=2/255", ("pgpe.eps", 2 / 255)),
        ("pgpe.eps=none", ("pgpe.eps", None)),
        ("milestones=3, 5", ("milestones", (3, 5))),
        ("milestones=", ("milestones", ())),
        ("eval_methods=IBP,CROWN", ("eval_methods", ("IBP", "CROWN"))),
        ("augment=true", ("augment", True)),
        ("tensorboard=0", ("tensorboard", False)),
        ("init=a=b", ("init", "a=b")),
    ],
)
def test_settings_are_parsed_by_type(text, expected):
    assert preset("quick").read(text) == expected


@pytest.mark.parametrize(
    "text", ["popsize", "nothing=1", "popsize=1.5", "augment=maybe", "eps=a/b", "eps=1/0", "pgpe.lr=x", "phases=1"]
)
def test_bad_settings(text):
    with pytest.raises(ValueError, match=text.split("=")[0].split(".")[-1]):
        preset("quick").read(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"phases": 3}, "phases: expected a list"),
        ({"phases": [3]}, "phases: expected an object"),
        ({"phases": [{"objective": "IBP", "estimator": {"name": 3}}]}, "estimator: expected a name, got 3"),
        ({"phases": [{"objective": {}}]}, "objective: expected a name"),
        ({"phases": [{"objective": "IBP", "steps": 3}]}, "unknown 'steps' in a phase"),
        ({"phases": [{"objective_settings": {}}]}, "unknown 'objective_settings' in a phase"),
        ({"phases": [{"objective": {"name": "PGD", "popsize": 1}}]}, "objective: PGD has no setting 'popsize'"),
        ({"algorithm": "pgpe"}, "unknown 'algorithm'"),
    ],
)
def test_files_of_settings_are_refused_in_one_line(change, message):
    with pytest.raises(ValueError, match=message):
        Config.from_dict({**Config().to_dict(), **change})


def test_a_phase_may_be_written_shortly():
    config = Config.from_dict({"phases": [{"objective": "deeppoly", "estimator": "GRAD", "epochs": 2}]})
    assert config == Config(phases=(Phase("CROWN", "grad", epochs=2),))


def test_a_flat_view_names_phases():
    found = flat(preset("quick").to_dict())
    assert found["phases"] == ["warm-start", "pgpe"]
    assert (found["pgpe.estimator"], found["pgpe.popsize"], found["warm-start.attack_steps"]) == ("pgpe", 256, 5)
