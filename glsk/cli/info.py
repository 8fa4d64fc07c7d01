"""``glsk info``."""

from glsk.cli.errors import one_line_errors, show


@one_line_errors()
def info() -> None:
    """Versions, devices, and which backends are here, and why not."""
    from glsk.info import report

    show(f"{report()}\n")
