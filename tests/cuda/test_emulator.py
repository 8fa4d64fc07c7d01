"""The emulation itself: what it must catch, it catches."""

import subprocess
from pathlib import Path

import pytest

from tests.cuda import emulation, small_kernels
from tests.cuda.small_kernels import KERNELS


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if (reason := emulation.missing()) is not None:
        pytest.skip(reason)
    return small_kernels.program(emulation.RACES, tmp_path_factory.mktemp("emulator"))


@pytest.mark.parametrize("name", KERNELS)
def test_what_is_said_of_a_kernel(program: Path, name: str) -> None:
    done = subprocess.run([str(program), str(list(KERNELS).index(name))], capture_output=True, text=True)
    said = KERNELS[name][1]
    if said == "misaligned at ":
        # Vector instructions may end the program at such an address.
        assert said in done.stdout + done.stderr
    else:
        assert said in done.stdout
        assert done.returncode == int(said != "fine")
