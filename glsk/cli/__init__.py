"""The command line. A command is a module of this package that holds a function of the same name, and a line here."""

import importlib
from typing import Annotated

import typer

from glsk.cli.errors import Group, one_line_errors, show

COMMANDS = ("train", "certify", "bounds", "verify", "export", "plot", "table", "tightness", "landscape", "info")
"""In the order of ``glsk --help``."""

app = typer.Typer(
    cls=Group,
    help="Train, certify and verify provably robust ReLU networks, by fused bounds of whole populations.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@one_line_errors()
def _version(asked: bool) -> None:
    if asked:
        from glsk import __version__

        show(f"glsk {__version__}\n")
        raise typer.Exit


@app.callback()
def glsk(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


def _unwrapped(docstring: str) -> str:
    """Its paragraphs as one line each: a terminal breaks them where it ends."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in docstring.split("\n\n"))


for _name in COMMANDS:
    _command = getattr(importlib.import_module(f"glsk.cli.{_name}"), _name)
    app.command(_name, help=_unwrapped(_command.__doc__))(_command)
