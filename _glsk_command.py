"""The command ``glsk``. Importing the package takes a second; a signal in that time ends it in one line too."""

import os
import signal
import sys
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> None:
    """Import the command line and run it; a signal that the process ignores (as under nohup) stays ignored."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, _end)
    try:
        from glsk.cli import app
    except ModuleNotFoundError as error:
        from glsk.requiring import advice

        if (how := advice(error)) is None:
            raise
        print(f"glsk: error: {how}", file=sys.stderr)
        sys.exit(2)

    for number, handler in before.items():
        signal.signal(number, handler)
    app()


def _end(number: int, frame: FrameType | None) -> None:
    """Nothing is open or half written yet, and an import may not be left to unwind."""
    os.write(2, f"glsk: stopped by {signal.Signals(number).name} before it began\n".encode())
    os._exit(128 + number)
