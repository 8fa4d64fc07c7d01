"""The kernels of csrc/cuda, run on the CPU by the emulation."""

import importlib
from collections.abc import Iterator
from types import ModuleType

import pytest

from tests.cuda import emulation


@pytest.fixture(scope="module")
def emulated() -> Iterator[tuple[ModuleType, emulation.Emulation]]:
    """The launchers over the emulated extension, as the ``cuda`` backend of CPU tensors."""
    if (reason := emulation.missing()) is not None:
        pytest.skip(reason)
    with emulation.installed(emulation.build()) as found:
        yield found


@pytest.fixture(scope="module")
def launcher(emulated: tuple[ModuleType, emulation.Emulation]) -> ModuleType:
    return emulated[0]


@pytest.fixture(scope="module")
def backward(launcher: ModuleType) -> ModuleType:
    """The launchers of the gradients."""
    return importlib.import_module("glsk.backends.cuda_backward")


@pytest.fixture
def device(emulated: tuple[ModuleType, emulation.Emulation]) -> Iterator[emulation.Emulation]:
    """What a test may switch; set back afterwards."""
    yield emulated[1]
    emulated[1].set()
