"""The command line. A command is a module of this package that holds a function of the same name, and a line here."""

import importlib
from typing import Annotated

import typer

from glsk.cli.errors import Group, one_line_errors, show

COMMANDS = ("train", "certify", "bounds", "verify", "export", "plot", "table", "tightness", "landscape", "info")
"""In the order of ``glsk --help``."""

app = typer.Typer(
    cls=Group,
    help="Certified training of ReLU networks with PGPE and tight convex relaxations.",
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


for _name in COMMANDS:
    app.command(_name)(getattr(importlib.import_module(f"glsk.cli.{_name}"), _name))
