"""The command before its package is imported."""

import signal
import subprocess
import sys

import pytest

import glsk

SIGNALLED = """
import os, sys

class Signals:  # the package's import is when the signal comes
    def find_spec(self, name, path=None, target=None):
        if name == "glsk":
            os.kill(os.getpid(), {number})

sys.meta_path.insert(0, Signals())
import _glsk_command
_glsk_command.main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_it_is_imported_ends_it_in_one_line(number: signal.Signals) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SIGNALLED.format(number=int(number))], capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 128 + number
    assert ended.stderr == f"glsk: stopped by {number.name} before it began\n"


def test_it_runs_the_command_line() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", "import sys, _glsk_command; sys.argv = ['glsk', '--help']; _glsk_command.main()"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0
    assert "train" in ended.stdout


@pytest.mark.parametrize("command", [["-m", "glsk"], ["-c", "import _glsk_command; _glsk_command.main()"]])
def test_it_says_its_version(command: list[str]) -> None:
    ended = subprocess.run([sys.executable, *command, "--version"], capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout) == (0, f"glsk {glsk.__version__}\n")
