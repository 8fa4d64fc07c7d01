"""``glsk info``."""

from glsk.cli.errors import one_line_errors, show
from glsk.cli.options import Json
from glsk.cli.output import show_json


@one_line_errors()
def info(as_json: Json = False) -> None:
    """Versions, devices, and which backends are here, and why not."""
    from glsk import info as found

    if as_json:
        show_json(found.info())
    else:
        show(f"{found.report()}\n")
