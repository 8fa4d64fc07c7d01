import pytest

import glsk
from glsk import bounds, models, objectives
from glsk.objectives.base import Objective

SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def bounded():
    return glsk.BoundedModule(models.build("cnn3", SHAPE, 3), SHAPE)


def test_every_relaxation_is_an_objective():
    assert set(bounds.methods()) <= set(objectives.names())


@pytest.mark.parametrize("name", objectives.names())
def test_an_objective_is_made_by_its_name_in_any_case(bounded, name):
    found = objectives.create(name.swapcase(), bounded, 3)
    assert isinstance(found, Objective)
    assert found.name == name
    assert found.differentiable == objectives.is_differentiable(name) == (name != "alpha-CROWN")
    assert isinstance(found.settings, objectives.settings_type(name))


@pytest.mark.parametrize(("alias", "name"), [("deeppoly", "CROWN"), ("Adversarial", "PGD"), ("pgd", "PGD")])
def test_aliases(alias, name):
    assert objectives.canonical(alias) == name


@pytest.mark.parametrize("call", [objectives.canonical, objectives.settings_type, objectives.is_differentiable])
def test_unknown_names(call):
    with pytest.raises(ValueError, match=r"objective: unknown 'PDG'; known: .*PGD"):
        call("PDG")
    with pytest.raises(TypeError, match="objective: expected a string, got int"):
        call(3)


def test_a_setting_of_another_objective_is_refused(bounded):
    with pytest.raises(ValueError, match="attack_steps: IBP has no such setting; it has: regularisation"):
        objectives.create("IBP", bounded, 3, {"attack_steps": 3})
    with pytest.raises(ValueError, match="taus: PGD has no such setting; it has: attack_steps"):
        objectives.create("PGD", bounded, 3, {"taus": 3})


def test_settings_of_another_type_are_refused(bounded):
    with pytest.raises(TypeError, match="settings: expected AttackSettings, got dict"):
        objectives.adversarial.Adversarial(bounded, 3, {"attack_steps": 3})
