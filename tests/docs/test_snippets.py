"""What the README and the documentation show can be run."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import typer.main

from glsk.cli import COMMANDS, app

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
GIVEN = """
import torch
torch.set_num_threads(1)
x, y = torch.rand(1, 1, 28, 28), torch.tensor([3])
lo, hi = x - 0.01, x + 0.01
"""


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


APART = ("extending.md", "soundness.md")
"""Pages that get a process of their own: one registers methods, one measures on a large network."""


@pytest.mark.parametrize("apart", [*APART, ""])
def test_the_programs_of_a_page_run_one_after_the_other(apart, tmp_path):
    """Never in this process, so that what they register is gone again."""
    pages = [page for page in PAGES if (page.name == apart if apart else page.name not in APART)]
    for page in pages:
        (tmp_path / f"{page.stem}.py").write_text("\n".join([GIVEN, *blocks(page, "python")]))
    paths = sorted(map(str, tmp_path.iterdir()))
    program = f"import runpy\nfor path in {paths}:\n    runpy.run_path(path)\n"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr


def commands():
    for page in PAGES:
        for line in "".join(blocks(page, "sh")).replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["glsk"]:
                yield pytest.param(words[1:], id=f"{page.name}: {' '.join(words)[:60]}")


@pytest.mark.parametrize("words", commands())
def test_the_commands_have_the_options_they_are_shown_with(words):
    group = typer.main.get_command(app)
    assert words[0] in COMMANDS
    known = {name for param in group.commands[words[0]].params for name in (*param.opts, *param.secondary_opts)}
    for word in words[1:]:
        assert not word.startswith("-") or word.partition("=")[0] in known, word


def test_every_command_is_documented():
    text = (ROOT / "docs" / "commands.md").read_text() + (ROOT / "docs" / "verification.md").read_text()
    assert all(f"glsk {name}" in text for name in COMMANDS)
