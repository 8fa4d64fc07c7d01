"""What commands print on standard output."""

import json
from collections.abc import Iterable
from typing import Any

from glsk.cli.errors import show


def show_tables(tables: Iterable[Any]) -> None:
    """Rich tables on standard output, where a closed pipe is an exception and not rich's own exit."""
    from rich.console import Console

    console = Console()
    with console.capture() as captured:
        for table in tables:
            console.print(table)
    show(captured.get())


def show_json(values: Any) -> None:
    """``values`` as indented JSON."""
    show(json.dumps(values, indent=1) + "\n")
