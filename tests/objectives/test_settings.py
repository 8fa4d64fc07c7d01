import pytest

import glsk
from glsk import models
from glsk.objectives import create, settings_type

INF, NAN = float("inf"), float("nan")
BAD = [
    *[(name, "attack_steps", value) for name in ("PGD", "SABR", "STAPS", "MTL-IBP") for value in (-1, 1.0, True, "8")],
    *[("PGD", "attack_step_size", value) for value in (-0.1, INF, NAN, "1")],
    *[("PGD", "attack_restarts", value) for value in (0, 1.5)],
    *[("PGD", "shared_attack", value) for value in (0, "yes", None)],
    *[(name, "tau", value) for name in ("SABR", "STAPS") for value in (0, -0.5, 1.01, NAN, None, True)],
    *[(name, "classifier_layers", value) for name in ("TAPS", "STAPS") for value in (0, -1, 3, 2.0)],
    *[("TAPS", "connector", value) for value in (0, 1.5, NAN)],
    *[("TAPS", "gradient_scale", value) for value in (0, -1, INF, NAN)],
    *[("STAPS", "latent_steps", value) for value in (-1, 2.5)],
    *[("STAPS", "latent_step_size", value) for value in (-1, INF)],
    *[("TAPS", "latent_restarts", value) for value in (0, None)],
    *[(name, "regularisation", value) for name in ("IBP", "SABR", "STAPS", "CC-IBP") for value in (-1, INF, NAN)],
    *[("CROWN", "regularisation_tolerance", value) for value in (0, 1.5, None)],
    ("TAPS", "bounds_while_annealing", 1),
    *[(name, "alpha", value) for name in ("MTL-IBP", "CC-IBP", "Exp-IBP") for value in (-0.1, 1.1, NAN, "0.5")],
    *[("MTL-IBP", "attack_radius", value) for value in (0, -1, INF)],
    *[("CROWN-IBP", name, value) for name in ("beta_start", "beta_end") for value in (-0.1, 1.1, NAN)],
]


@pytest.fixture(scope="module")
def bounded():
    return glsk.BoundedModule(models.build("cnn3", (1, 8, 8), 3), (1, 8, 8))


@pytest.mark.parametrize(("name", "setting", "value"), BAD)
def test_a_bad_setting_is_named(bounded, name, setting, value):
    with pytest.raises(ValueError, match=f"^{setting}: expected"):
        create(name, bounded, 3, {setting: value})


def test_step_sizes_by_default():
    assert settings_type("PGD")(attack_steps=10).step_size == 0.25
    assert settings_type("PGD")(attack_step_size=0.7).step_size == 0.7
    assert settings_type("TAPS")(latent_steps=5).latent_step == 0.5
