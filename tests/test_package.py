"""What ``import glsk`` brings, and how its objects look."""

import importlib
import subprocess
import sys

import pytest
import torch

import glsk
from glsk.data import Dataset


def test_everything_that_is_listed_is_there():
    assert dir(glsk) == sorted(glsk.__all__)
    for name in glsk.__all__:
        assert getattr(glsk, name) is not None
    with pytest.raises(AttributeError, match="module 'glsk' has no attribute 'nothing'"):
        glsk.nothing  # noqa: B018


def test_submodules_are_imported_when_they_are_asked_for():
    script = (
        "import sys, glsk; before = set(sys.modules);"
        "assert not {'glsk.training', 'glsk.verify', 'glsk.formats', 'onnx', 'evotorch', 'matplotlib'} & before;"
        "assert glsk.precision.accurate; assert glsk.formats.read_vnnlib; assert glsk.training.preset;"
        "assert not {'onnx', 'evotorch', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_they_are_the_modules_themselves():
    assert glsk.precision is importlib.import_module("glsk.precision")


def test_a_chain_a_module_and_a_data_set_can_be_read():
    net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Identity(), torch.nn.Linear(3, 2))
    bounded = glsk.BoundedModule(net, 4)
    assert repr(bounded) == "BoundedModule(input [4]\n  0: 4 -> 3, ReLU\n  3: 3 -> 2\n)"
    assert repr(bounded.chain) == repr(bounded).replace("BoundedModule", "Chain")
    x = torch.rand(5, 4)
    assert bounded(x).equal(net(x))
    images, labels = torch.zeros(5, 1, 2, 3), torch.zeros(5, dtype=torch.int64)
    small = Dataset("tiny", images, labels, images[:2], labels[:2], 3)
    assert repr(small) == "Dataset('tiny': 5 training and 2 test images [1, 2, 3], 3 classes)"
