import subprocess
import sys

import pytest

from glsk import estimators
from glsk.estimators import Estimator


def test_every_estimator_is_known_by_its_name_in_any_case():
    assert estimators.names() == ("grad", "pgpe", "pgpe-cv", "rgs")
    for name in estimators.names():
        kind = estimators.get(name.upper())
        assert issubclass(kind, Estimator)
        assert kind.kind == name
        assert kind.Settings()


@pytest.mark.parametrize("name", ["es", "", None, 3])
def test_an_unknown_one_is_refused_with_those_that_are_known(name):
    with pytest.raises(ValueError, match=r"estimator: unknown .*; known: grad, pgpe, pgpe-cv, rgs"):
        estimators.get(name)


def test_settings_and_gradients_need_no_evotorch():
    script = """
import sys
from glsk.training import preset, loop, phases
from tests.estimators.stages import build, small_images, small_net
for kind in ("grad", "rgs"):
    build(kind, small_net(), small_images(), batch_size=6, milestones=(), backend="reference").step(0)
preset("mnist-0.1-cnn3-deeppoly-pgpe-cv")
print(*sorted({"evotorch", "ray", "tensorboard", "matplotlib", "onnx"} & set(sys.modules)))
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == []
